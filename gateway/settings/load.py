"""Settings: precedence (flag, environment, file, default), checks across settings, complaints.

The rule: `load` returns settings that a server can start with, or raises; it opens nothing but the
settings file.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ValidationError

from gateway.domain.addresses import ALL_INTERFACES
from gateway.errors import ConfigError
from gateway.settings.builtin_plugins import PREFIX as BUILTIN
from gateway.settings.sources import (
    ROWS,
    Location,
    SourcedValue,
    from_environment,
    from_file,
    from_flags,
)
from gateway.settings.table import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CONFIG: Final = Path("config", "gateway.yaml")

_WORDS: Final = {"extra_forbidden": "is not a known key", "missing": "is missing"}


def load(
    argv_values: Mapping[str, object], environ: Mapping[str, str], *, listening: bool = True
) -> Settings:
    """Put the settings together: flag over environment over file over default.

    `argv_values` holds what was given on the command line, by setting name. A relative path is
    taken from the current folder; in the file, from DIRECTORY. Raises ConfigError for one fault
    and an ExceptionGroup of them for several; each says where, what, and what to do. A verb that
    opens no port passes `listening=False` and may have settings that no server would start with.
    """
    faults: list[ConfigError] = []
    outer = {**from_environment(environ, faults), **from_flags(argv_values)}
    here = Path.cwd()
    start = here / str(outer["directory"].value) if "directory" in outer else here
    config = _config_file(outer, start)
    inner = from_file(config, faults) if config else {}
    said = {**inner, **outer}
    directory = here / str(said["directory"].value) if "directory" in said else here
    plain = {
        name: _absolute(name, item.value, here if name in outer or name == "directory" else directory)
        for name, item in said.items()
    }
    plain["config"] = config and os.path.abspath(config)
    settings = _validated({**plain, "auth_said": "auth" in said}, said, faults)
    if settings is not None and not faults:
        faults.extend(_disagreements(settings, said))
        danger = exposed(settings)
        if danger and listening:
            faults.append(said["host"].error(danger))
    _raise(faults)
    return cast(Settings, settings)  # without faults it was validated


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine only: 127.0.0.0/8, ::1, localhost (other names may lie)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposed(settings: Settings) -> str | None:
    """Return why this address must not be opened: others reach it, and nobody chose who may upload."""
    if is_loopback(settings.host) or settings.auth_said:
        return None
    return (
        f"{settings.host} can be reached by others, so say who may upload: --auth token"
        " (a token is generated and printed once), or --auth none if you mean it"
    )


def _config_file(outer: Mapping[str, SourcedValue], start: Path) -> Path | None:
    """Return the settings file: the one that was named, or the default one if it is there."""
    if "config" in outer:
        return Path.cwd() / str(outer["config"].value)
    default = start / DEFAULT_CONFIG
    return default if default.exists() else None


def _absolute(name: str, value: Any, base: Path) -> Any:
    if not ROWS[name].option.path:
        return value
    if isinstance(value, list):
        return [_absolute(name, item, base) for item in value]
    if not isinstance(value, str) or not value or value.startswith(BUILTIN):
        return value
    return os.path.abspath(base / value)


def _validated(
    plain: Mapping[str, Any], said: Mapping[str, SourcedValue], faults: list[ConfigError]
) -> Settings | None:
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name, *inner = detail["loc"]
            faults.append(said[str(name)].error(_words(detail, str(name)), tuple(inner)))
        return None


def _words(detail: ErrorDetails, name: str) -> str:
    """Say what is wrong with a value; quote it only where it cannot be a secret."""
    cause = detail.get("ctx", {}).get("error")
    known = str(cause) if cause else _WORDS.get(detail["type"])
    words = known or detail["msg"].replace("Input should be", "must be")
    quotable = isinstance(detail["input"], str) and not ROWS[name].option.secret
    return f"{words} (got {detail['input']!r})" if quotable else words


def _disagreements(settings: Settings, said: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield what is wrong only in combination, or with what a path points at."""
    pair = [name for name in ("tls_cert", "tls_key") if getattr(settings, name) is not None]
    if len(pair) == 1:
        other = "--tls-key" if pair == ["tls_cert"] else "--tls-cert"
        yield said[pair[0]].error(f"HTTPS needs both files; give {other} too")
    for name in pair if len(pair) == 2 else ():
        path = getattr(settings, name)
        if not (path.is_file() and os.access(path, os.R_OK)):
            yield said[name].error(f"{path} cannot be read; check the path and its permissions")
    yield from _doubled(settings, said)
    yield from _unknown_issuer(settings, said)
    if settings.deliver == "workers" and settings.events == "journal":
        yield said["deliver"].error("workers need NATS: say where it is with --events nats://HOST")
    if settings.peers and settings.advertise is None and settings.host in ALL_INTERFACES:
        yield said["peers"].error("peers must know us by a name; say it with --advertise HOST:PORT")


def _doubled(settings: Settings, said: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for index, token in enumerate(settings.tokens):
        if token.name in seen:
            inner: Location = (index, "name")
            yield said["tokens"].error(f"two tokens are called {token.name}; names are unique", inner)
        seen.add(token.name)


def _unknown_issuer(settings: Settings, said: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield what is missing to judge JSON Web Tokens (RFC 8725 sections 3.8 and 3.9)."""
    if settings.jwt_issuer is None:
        wanting = ("jwt_jwks_url", "jwt_audience", "jwt_client_ids")
        asking = [name for name in wanting if getattr(settings, name)]
        if settings.auth == "jwt":
            asking = ["auth"]
        for name in asking[:1]:
            words = "say whose tokens are believed, to the letter of their `iss`: --jwt-issuer URL"
            yield said[name].error(words)
    elif not (settings.jwt_audience or settings.jwt_client_ids):
        yield said["jwt_issuer"].error(
            "say whom the tokens must be for: --jwt-audience NAME (their `aud`), or --jwt-client-ids ID"
            " where they have none (Cognito's access tokens)"
        )


def _raise(faults: list[ConfigError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ExceptionGroup("the settings have several faults", faults)
