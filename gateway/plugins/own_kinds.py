"""The kinds of plugins of this package."""

from __future__ import annotations

from typing import Final

from gateway.plugins.kinds import CONFIG_KIND, HANDLER_KIND
from gateway.plugins.webhooks.kind import WEBHOOK_KIND

KINDS: Final = (HANDLER_KIND, WEBHOOK_KIND, CONFIG_KIND)
"""Tried in this order; kinds of higher packages come after them."""
