"""Upload Gateway: a self-hosted async API gateway whose first job is durable file uploads.

`docs/architecture.md` describes the packages; `setup.cfg` has the order of their imports.
"""

__version__ = "0.1.0"
