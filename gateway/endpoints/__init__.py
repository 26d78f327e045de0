"""Every HTTP endpoint; `dispatcher` finds the one of a request and writes every error response."""
