"""Who sends a request: tokens, JSON Web Tokens, signed URLs, internal credentials, trusted proxies."""
