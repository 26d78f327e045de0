"""Endpoints: see docs/architecture.md."""
