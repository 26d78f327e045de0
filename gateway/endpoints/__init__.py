"""endpoints: see docs/architecture.md."""
