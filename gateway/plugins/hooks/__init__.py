"""Runs the handlers of the plugins for the server."""

from gateway.plugins.hooks.dispatch import MAX_FAILED_UPLOADS, Hooks

__all__ = ["MAX_FAILED_UPLOADS", "Hooks"]
