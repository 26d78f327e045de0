"""The engines that the suites run over."""

from tests.support.journal import journal
from tests.support.nats.fixtures import cluster, connect, server

__all__ = ["cluster", "connect", "journal", "server"]
