"""A committer without a server."""

from tests.support.committer import harness, on_failpoint

__all__ = ["harness", "on_failpoint"]
