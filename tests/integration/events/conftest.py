"""A recorder of events."""

from tests.support.recorders import recorder

__all__ = ["recorder"]
