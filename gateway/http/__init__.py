"""Http: see docs/architecture.md."""
