"""The values that scripts get: the event, its headers, `MU`, and the configs.

The event, its headers and `MU` are dicts, so that `json.dumps` writes them. A value of a config
leaves only through `get_service_config`; no repr, log line or error shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

from gateway.telemetry.redaction import Mask


class Headers(dict[str, str]):
    """Request headers: looked up, set and deleted without regard to case (RFC 9110 section 5.1)."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(self._spelling(name))

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(self._spelling(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self._spelling(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(self._spelling(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a header in whatever case it was sent, or `default`."""
        return super().get(self._spelling(name), default)

    def _spelling(self, name: str) -> str:
        if super().__contains__(name):
            return name
        lowered = name.lower()
        return next((key for key in self if key.lower() == lowered), name)


class Event(dict[str, Any]):
    """An event, as a handler gets it.

    A missing key whose name has a hyphen is looked up among the request headers, without
    regard to case: `event.get("X-Auth-Token")`. Other names never are.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        headers = values.get("headers")
        # The usual type first: asking for `Mapping` takes longer than all the rest.
        if type(headers) is dict or (isinstance(headers, Mapping) and not isinstance(headers, Headers)):
            self["headers"] = Headers(headers)

    def __missing__(self, key: str) -> Any:
        headers = self._headers_for(key)
        if headers is None or key not in headers:
            raise KeyError(key)
        return headers[key]

    def __contains__(self, key: object) -> bool:
        if super().__contains__(key):
            return True
        headers = self._headers_for(key)
        return headers is not None and key in headers

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, the header of that name, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def copy(self) -> Event:
        """Return a copy that shares no dict and no list with this one."""
        copied = Event(self)
        for key, value in dict.items(self):
            if isinstance(value, _CONTAINERS):
                copied[key] = _copy(value)
        return copied

    def _headers_for(self, key: object) -> Headers | None:
        if not isinstance(key, str) or "-" not in key or not super().__contains__("headers"):
            return None
        headers = super().__getitem__("headers")
        return headers if isinstance(headers, Headers) else None


class MU(dict[str, Any]):
    """A dict whose keys can be read and written as attributes, the dicts and lists inside too.

    Reading a missing key as an attribute raises an `AttributeError` that lists the keys.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, self._wrap(value))

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            keys = ", ".join(map(str, self)) or "none"
            raise AttributeError(f"there is no key {name!r}; the keys are: {keys}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(f"there is no key {name!r}") from None

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take over the keys of a mapping, as `dict.update` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`; store `default` first where there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, dict) and not isinstance(value, MU):
            return type(self)(value)
        if isinstance(value, list):
            return [self._wrap(item) for item in value]
        return value

    def __copy__(self) -> Self:
        return type(self)(self)


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
        config = _masked_copy(self._values[name])
        return MaskedMU(config) if mu_conversion else MaskedConfig(config)

    def replaced(self, values: Mapping[str, Mapping[str, Any]]) -> Configs:
        """Return other configs with the same secrets."""
        return Configs(values, mask=self._mask)

    def mask(self, text: str) -> str:
        """Return `text` without the values that came from `!secret`, `${env:}` and `${file:}`."""
        return self._mask(text)


_CONTAINERS: Final = (dict, list)
"""A tuple: `isinstance` of a union takes twice as long."""


def _copy(value: Any) -> Any:
    if isinstance(value, Headers):
        return Headers(value)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _masked_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MaskedConfig({key: _masked_copy(item) for key, item in value.items()})
    if isinstance(value, list):
        return [_masked_copy(item) for item in value]
    return value
