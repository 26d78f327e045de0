"""Real NATS servers."""

from tests.support.nats.fixtures import cluster, connect, server

__all__ = ["cluster", "connect", "server"]
