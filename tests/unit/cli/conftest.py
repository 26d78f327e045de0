"""`ask`: run `gateway events ...`."""

from tests.support.cli import ask

__all__ = ["ask"]
