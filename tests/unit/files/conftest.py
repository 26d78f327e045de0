"""A committer without a server."""

from tests.support.committer import listen, office

__all__ = ["listen", "office"]
