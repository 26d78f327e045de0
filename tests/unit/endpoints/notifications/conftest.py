"""A journal in a folder of its own."""

from tests.support.journal import journal

__all__ = ["journal"]
