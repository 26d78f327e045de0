"""Settings that are read again while the gateway serves: its tokens. All others take a restart."""

from __future__ import annotations

import logging

from gateway.auth.tokens import tokens_of
from gateway.errors import ConfigError
from gateway.server.process import SharedResources
from gateway.settings import Settings, Token
from gateway.telemetry.logs import event

log = logging.getLogger("gateway")


def reread_tokens(shared: SharedResources) -> tuple[Token, ...]:
    """Return the tokens that the settings have now, and warn of settings that take a restart.

    Blocking. Raises `ConfigError`, one for all that is wrong.
    """
    try:
        settings = shared.read_settings()
    except ExceptionGroup as group:
        raise ConfigError("; ".join(map(str, group.exceptions))) from group
    tokens, changed = tokens_of(settings), _changed(shared.settings, settings)
    if changed:
        log.warning(
            "the settings have changed, and take a restart: %s",
            ", ".join(changed),
            extra=event("settings.changed", names=changed),
        )
    return tokens


def _changed(old: Settings, new: Settings) -> list[str]:
    names = (name for name in type(old).model_fields if name != "tokens")
    return [name for name in names if getattr(old, name) != getattr(new, name)]
