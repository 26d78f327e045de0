"""Auth: see docs/architecture.md."""
