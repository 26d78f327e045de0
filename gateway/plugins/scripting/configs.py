"""The values of Config plugins, for scripts.

A value leaves only through `get_service_config`; no repr, log line or error shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.plugins.scripting.event import MU
from gateway.telemetry.redaction import Mask


class MaskedConfig(dict[str, Any]):
    """A config as a dict. Its repr shows the keys only."""

    def __repr__(self) -> str:
        return f"<config with keys {', '.join(map(str, self))}>"


class MaskedMU(MU):
    """A config with attribute access. Its repr shows the keys only."""

    __repr__ = MaskedConfig.__repr__


class Configs:
    """The Config plugins of one set: name to mapping, and the values to mask in texts."""

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Any]],
        secrets: Iterable[str] = (),
        mask: Mask | None = None,
    ) -> None:
        self._values = dict(values)
        self._mask = Mask() if mask is None else mask
        self._mask.add_secrets(secrets)

    def __repr__(self) -> str:
        return f"<Configs {', '.join(self.names)}>"

    @property
    def names(self) -> list[str]:
        """The names of all configs, in order."""
        return sorted(self._values)

    def get(self, name: str, mu_conversion: bool = False) -> dict[str, Any]:
        """Return a copy of a config, with attribute access if `mu_conversion`.

        Raises `LookupError` that lists the names.
        """
        if name not in self._values:
            names = ", ".join(self.names) or "none"
            raise LookupError(f"there is no Config plugin named {name!r}; the names are: {names}")
        if mu_conversion:
            return MaskedMU(_masked_copy(self._values[name]))
        copy: dict[str, Any] = _masked_copy(self._values[name])
        return copy

    def mask(self, text: str) -> str:
        """Return `text` without the values that came from `!secret`, `${env:}` and `${file:}`."""
        return self._mask(text)


def _masked_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MaskedConfig({key: _masked_copy(item) for key, item in value.items()})
    if isinstance(value, list):
        return [_masked_copy(item) for item in value]
    return value
