"""Loads settings: precedence (flag, environment, file, default) and checks across settings.

`load` opens no other file than the settings file, and for `--processes auto` the limits of the cores.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import ValidationError

from gateway.domain.addresses import ALL_INTERFACES
from gateway.domain.template_segments import variable_names
from gateway.errors import ConfigError
from gateway.settings.quotas import repeated_scope
from gateway.settings.sources import (
    ROWS,
    Location,
    SourcedValue,
    from_environment,
    from_file,
    from_flags,
)
from gateway.settings.table import Settings
from gateway.settings.values import BUILTIN

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT_CONFIG: Final = Path("config", "gateway.yaml")

_MESSAGES: Final = {
    "extra_forbidden": "is not a known key",
    "missing": "is missing",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
}


def load(
    argv_values: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    listening: bool = True,
    missing: list[ConfigError] | None = None,
) -> Settings:
    """Merge the settings: flag over environment over file over default.

    `argv_values` holds the flags that were given, by setting name. A relative path starts at the
    current folder; in the file, at DIRECTORY. `listening=False` allows settings that expose an
    address without authorization, for commands that open no port. `missing`, where it is given, takes
    the errors of what only a deployment has. Raises `ConfigError` for one error and an ExceptionGroup of
    them for several.
    """
    errors: list[ConfigError] = []
    outer = {**from_environment(environ, errors), **from_flags(argv_values)}
    cwd = Path.cwd()
    start = cwd / str(outer["directory"].value) if "directory" in outer else cwd
    config = _config_file(outer, start)
    inner = from_file(config, errors) if config else {}
    sources = {**inner, **outer}
    errors += [
        item.error("is empty: name a path") for name, item in sources.items() if _empty(name, item)
    ]
    directory = cwd / str(sources["directory"].value) if "directory" in sources else cwd
    plain = {
        name: _absolute(name, item.value, cwd if name in outer or name == "directory" else directory)
        for name, item in sources.items()
    }
    plain["config"] = config and os.path.abspath(config)
    explicit = {f"{name}_explicit": name in sources for name in ("auth", "directory")}
    if inner and "config" not in outer:
        explicit["directory_explicit"] = True  # settings in the folder itself choose it
    settings = _validated({**plain, **explicit}, sources, errors)
    if settings is not None and not errors:
        errors.extend(_conflicts(settings, sources))
        unmet = errors if missing is None else missing
        unmet.extend(_deployment_errors(settings, sources))
        exposure = exposure_error(settings)
        if exposure and listening:
            unmet.append(sources["host"].error(exposure))
    _raise(errors)
    return cast(Settings, settings)  # without errors it was validated


def is_loopback(host: str) -> bool:
    """Return whether `host` is 127.0.0.0/8, ::1 or localhost; other names may resolve to anything."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def exposure_error(settings: Settings) -> str | None:
    """Return why HOST must not be opened: other machines reach it, and `auth` was not set."""
    if is_loopback(settings.host) or settings.auth_explicit:
        return None
    return (
        f"{settings.host} can be reached by others, so say who may upload: --auth token"
        " (a token is generated and printed once), or --auth none if you mean it"
    )


def _config_file(outer: Mapping[str, SourcedValue], start: Path) -> Path | None:
    """Return the settings file: the one that is named, or the default one if it exists."""
    if "config" in outer:
        return Path.cwd() / str(outer["config"].value)
    default = start / DEFAULT_CONFIG
    return default if os.path.exists(default) else None


def _empty(name: str, item: SourcedValue) -> bool:
    """Tell whether a setting of paths has an empty one, which would be the current folder."""
    values = item.value if isinstance(item.value, list) else [item.value]
    return ROWS[name].option.path and "" in values


def _absolute(name: str, value: Any, base: Path) -> Any:
    if not ROWS[name].option.path:
        return value
    if isinstance(value, list):
        return [_absolute(name, item, base) for item in value]
    if not isinstance(value, str) or not value or value.startswith(BUILTIN):
        return value
    return os.path.abspath(base / value)


def _validated(
    plain: Mapping[str, Any], sources: Mapping[str, SourcedValue], errors: list[ConfigError]
) -> Settings | None:
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name, *inner = detail["loc"]
            errors.append(sources[str(name)].error(_message(detail, str(name)), tuple(inner)))
        return None


def _message(detail: ErrorDetails, name: str) -> str:
    """Return the message for an invalid value. A value that may be a secret is not quoted."""
    cause = detail.get("ctx", {}).get("error")
    own = str(cause) if cause else _MESSAGES.get(detail["type"])
    message = own or detail["msg"].replace("Input should be", "must be")
    quotable = isinstance(detail["input"], str) and not ROWS[name].option.secret
    return f"{message} (got {detail['input']!r})" if quotable else message


def _conflicts(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield errors of combinations."""
    if os.path.exists(settings.directory) and not os.path.isdir(settings.directory):
        yield sources["directory"].error(f"{settings.directory} is a file, not a folder")
    if settings.stored_path is not None:
        try:
            _ = settings.upload_template
        except ValueError as error:
            yield sources["stored_path"].error(str(error))
    if settings.identity_headers is not None and not settings.trusted_proxies:
        yield sources["identity_headers"].error(
            "no client may send them yet: add --trusted-proxies with the addresses of your proxy"
        )
    yield from _repeated_tokens(settings, sources)
    yield from _wrong_quotas(settings, sources)
    if settings.deliver == "workers" and settings.events == "journal":
        yield sources["deliver"].error("workers need NATS: add --events nats://HOST")
    if settings.peers and settings.advertise is None and settings.host in ALL_INTERFACES:
        yield sources["peers"].error("peers need an address of this gateway: add --advertise HOST:PORT")


def _deployment_errors(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield what is missing to serve: files of certificates, the issuer of JSON Web Tokens."""
    pair = [name for name in ("tls_cert", "tls_key") if getattr(settings, name) is not None]
    if len(pair) == 1:
        other = "--tls-key" if pair == ["tls_cert"] else "--tls-cert"
        yield sources[pair[0]].error(f"HTTPS needs both files; give {other} too")
    files = pair if len(pair) == 2 else []
    if settings.tls_client_ca is not None:
        if not pair:
            yield sources["tls_client_ca"].error("needs HTTPS: give --tls-cert and --tls-key too")
        files = [*files, "tls_client_ca"]
    for name in files:
        path = getattr(settings, name)
        if not (path.is_file() and os.access(path, os.R_OK)):
            yield sources[name].error(f"{path} cannot be read; check the path and its permissions")
    yield from _incomplete_jwt(settings, sources)
    yield from _incomplete_oidc(settings, sources)


def _repeated_tokens(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for index, token in enumerate(settings.tokens):
        if token.name in seen:
            inner: Location = (index, "name")
            yield sources["tokens"].error(
                f"token name {token.name} is used twice; names must be unique", inner
            )
        seen.add(token.name)


def _wrong_quotas(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    variables = variable_names(settings.file_upload_api_path)
    for index, quota in enumerate(settings.quotas):
        if (fault := quota.fault(variables)) is not None:
            yield sources["quotas"].error(fault, (index, "per"))
        if repeated_scope(settings.quotas, index):
            message = "counts the same as an earlier quota: put their limits into one"
            yield sources["quotas"].error(message, (index,))


def _incomplete_jwt(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield what is missing to verify JSON Web Tokens (RFC 8725 sections 3.8 and 3.9)."""
    if settings.jwt_issuer is None:
        dependent = ("jwt_jwks_url", "jwt_audience", "jwt_client_ids")
        names = [name for name in dependent if getattr(settings, name)]
        if settings.auth == "jwt":
            names = ["auth"]
        for name in names[:1]:
            yield sources[name].error(
                "no issuer is set: add --jwt-issuer URL, which must equal the `iss` claim exactly"
            )
    elif not (settings.jwt_audience or settings.jwt_client_ids):
        yield sources["jwt_issuer"].error(
            "no audience is set: add --jwt-audience NAME (the `aud` claim), or --jwt-client-ids ID for"
            " tokens without one (Cognito access tokens)"
        )


def _incomplete_oidc(settings: Settings, sources: Mapping[str, SourcedValue]) -> Iterator[ConfigError]:
    """Yield what is missing to sign people in with OpenID Connect."""
    if settings.oidc_issuer is None:
        dependent = ("oidc_client_id", "oidc_client_secret_file", "oidc_scopes", "oidc_groups")
        for name in [name for name in dependent if getattr(settings, name)][:1]:
            yield sources[name].error("no issuer is set: add --oidc-issuer URL")
        return
    if not settings.oidc_client_id:
        yield sources["oidc_issuer"].error(
            "the issuer must know this gateway: register it there, and add --oidc-client-id ID"
        )
    if settings.auth == "none":
        yield sources["oidc_issuer"].error(
            "nobody needs to sign in with --auth none: add --auth token, or --auth jwt"
        )
    path = settings.oidc_client_secret_file
    if path is not None and not (path.is_file() and os.access(path, os.R_OK)):
        yield sources["oidc_client_secret_file"].error(
            f"{path} cannot be read; check the path and its permissions"
        )


def _raise(errors: list[ConfigError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("several settings are invalid", errors)
