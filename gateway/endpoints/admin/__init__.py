"""Admin: see docs/architecture.md."""
