"""Fires the events at the handlers of the plugins, from the server's side.

dispatch    which handlers, in which lane, and what they decided        report    one run, told
"""

from gateway.plugins.hooks.dispatch import FAILED_IN_FLIGHT, Hooks

__all__ = ["FAILED_IN_FLIGHT", "Hooks"]
