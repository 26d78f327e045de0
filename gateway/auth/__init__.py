"""auth: see docs/architecture.md."""
