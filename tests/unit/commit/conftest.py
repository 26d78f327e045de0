"""A committer without a server, and its parts."""

from tests.support.committer import harness, incoming, on_failpoint
from tests.support.held import held
from tests.support.journal import journal

__all__ = ["harness", "held", "incoming", "journal", "on_failpoint"]
