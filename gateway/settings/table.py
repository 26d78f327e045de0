"""Settings: the one table. A field here is a flag, an environment name, a file key and a doc line.

The rule: everything about a setting stands beside it, in its type, its default and its `Option`;
nothing else in the project repeats a name or a default.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from gateway.domain.addresses import Address
from gateway.domain.model import OnConflict
from gateway.settings import values
from gateway.settings.builtin_plugins import plugin_folder
from gateway.settings.downloads import DOWNLOADS, DownloadSettings
from gateway.settings.events import EVENTS, EventSettings
from gateway.settings.jwt import JWT, JwtSettings
from gateway.settings.objects import ObjectSettings
from gateway.settings.option import Option, Setting
from gateway.settings.records import RecordSettings
from gateway.settings.storage import StorageSettings
from gateway.settings.values import Bucket

__all__ = ["STATE_FOLDER", "Address", "Bucket", "Settings", "Token", "settings_table"]

STATE_FOLDER: Final = ".gateway"


class Token(BaseModel):
    """A known token: whom it stands for, and the SHA-256 of it (64 hex digits, never shown)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(values.token_name)]
    sha256: Annotated[str, AfterValidator(values.hex_digest), Field(repr=False)]


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(values.network)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_LISTEN: Final = "Listening"
_PLACE: Final = "Folders and files"
_UPLOADS: Final = "Uploads"
_WHO: Final = "Who may"
_LIMITS: Final = "Limits"
_LOGS: Final = "Logs"
_GROUPS: Final = (_LISTEN, _PLACE, _UPLOADS, DOWNLOADS, _WHO, JWT, _LIMITS, EVENTS, _LOGS)


class Settings(
    EventSettings, StorageSettings, ObjectSettings, RecordSettings, DownloadSettings, JwtSettings
):
    """Every setting of a gateway, checked and frozen. Paths are absolute, times seconds, sizes bytes.

    `auth_said` tells whether somebody chose `auth`, or it is only the default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[
        str, BeforeValidator(values.host), Option(_LISTEN, "address to listen on", "HOST")
    ] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535), Option(_LISTEN, "port to listen on; 0 picks a free one", "PORT")
    ] = 8080
    tls_cert: Annotated[
        Path | None,
        Option(_LISTEN, "certificate chain (PEM): serve HTTPS; read again on SIGHUP", "FILE", path=True),
    ] = None
    tls_key: Annotated[
        Path | None, Option(_LISTEN, "private key (PEM) of the certificate", "FILE", path=True)
    ] = None
    public_url: Annotated[
        str | None,
        BeforeValidator(values.base_url),
        Option(
            _LISTEN,
            "what links in answers start with",
            "URL",
            shown="the advertised address",
            secret=True,
        ),
    ] = None
    advertise: Annotated[
        Address | None,
        BeforeValidator(values.address),
        Option(_LISTEN, "address and port that events name", "HOST:PORT", shown="the bound address"),
    ] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Option(_LISTEN, "whose Forwarded and X-Forwarded-* headers are believed (repeatable)", "CIDR"),
    ] = ()
    grace: Annotated[
        Seconds, Option(_LISTEN, "how long SIGTERM waits for bodies on their way", "SECONDS")
    ] = 30.0

    directory: Annotated[
        Path,
        Option(
            _PLACE, "an upload with path /upload/a lands at DIRECTORY/upload/a", "DIR", ".", path=True
        ),
    ] = Field(default_factory=Path.cwd)
    config: Annotated[
        Path | None,
        Option(
            _PLACE,
            "settings file",
            "FILE",
            "config/gateway.yaml below DIRECTORY, if there",
            True,
            False,
            False,
        ),
    ] = None
    plugins: Annotated[
        tuple[Annotated[Path, BeforeValidator(plugin_folder)], ...],
        Option(
            _PLACE,
            "folder of YAML plugins, read recursively, or builtin:NAME for a shipped set (repeatable)",
            "DIR",
            path=True,
            separator=":",
        ),
    ] = ()
    installation_key_file: Annotated[
        Path | None,
        Option(
            _PLACE,
            "key behind internal credentials, signed URLs and marks of objects, shared by all nodes",
            "FILE",
            shown="in the state folder",
            path=True,
        ),
    ] = None

    peers: Annotated[
        tuple[Annotated[Address, BeforeValidator(values.address)], ...],
        Option(
            _PLACE,
            "another gateway of this installation, by the address it advertises (repeatable)",
            "HOST:PORT",
        ),
    ] = ()
    secrets_key_file: Annotated[
        Path | None,
        Option(
            _PLACE,
            "keys of !secret values, one a line; the first one encrypts. Nobody else may read it",
            "FILE",
            path=True,
        ),
    ] = None
    secrets_key: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(values.secrets_key)], ...],
        Field(repr=False),
        Option(
            _PLACE,
            "the same keys, separated by commas; they come before those of the file",
            "KEY",
            secret=True,
            in_file=False,
            in_flags=False,
        ),
    ] = ()

    file_upload_api_path: Annotated[
        str,
        AfterValidator(values.template),
        Option(
            _UPLOADS, "template of the upload path: literal segments and {name} variables", "TEMPLATE"
        ),
    ] = "/upload/{filepath}"
    on_conflict: Annotated[
        OnConflict,
        Option(
            _UPLOADS, "when the file exists: replace it, reject (409) or rename", "replace|reject|rename"
        ),
    ] = "replace"
    durability: Annotated[
        Literal["full", "none"],
        Option(
            _UPLOADS,
            "full: on stable storage before 2xx; none: no fsync, power loss may cost files",
            "full|none",
        ),
    ] = "full"
    file_mode: Annotated[
        int,
        Field(ge=0, le=0o777),
        BeforeValidator(values.octal),
        Option(_UPLOADS, "permission bits of published files, octal", "MODE", shown="0640"),
    ] = 0o640

    auth: Annotated[
        Literal["none", "token", "jwt"],
        Option(
            _WHO,
            "default authorization; must be said where HOST is not loopback",
            "none|token|jwt",
            "none on loopback",
        ),
    ] = "none"
    tokens: Annotated[
        tuple[Annotated[Token, BeforeValidator(values.token_fields)], ...],
        Option(
            _WHO, "known tokens, as `gateway token` prints them (repeatable)", "NAME:SHA256", secret=True
        ),
    ] = ()
    redact: Annotated[
        tuple[Annotated[str, AfterValidator(values.header_name)], ...],
        Option(_WHO, "more headers whose values are never written down (repeatable)", "HEADER"),
    ] = ()

    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(values.origin)], ...],
        Option(
            _WHO,
            "origins whose pages may call routes that do not say `cors` themselves (repeatable)",
            "ORIGIN",
        ),
    ] = ()

    max_bytes: Annotated[
        int | None,
        Field(ge=1),
        BeforeValidator(values.size_or_none),
        Option(_LIMITS, "largest upload, such as 10G", "SIZE", shown="none"),
    ] = None
    min_free_bytes: Annotated[
        int,
        Field(ge=0),
        BeforeValidator(values.size),
        Option(_LIMITS, "disk space that uploads leave free", "SIZE", shown="64MiB"),
    ] = 64 * 1024**2
    idle_timeout: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Option(_LIMITS, "longest silence of a client in the middle of a body", "SECONDS"),
    ] = 60.0
    processes: Annotated[
        int,
        Field(ge=1, le=64),
        Option(_LIMITS, "server processes that share the port", "N"),
    ] = 1

    log_format: Annotated[
        Literal["text", "json"] | None,
        Option(
            _LOGS, "one line per request and handler run", "text|json", "text on a terminal, else json"
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Option(_LOGS, "least weight that is logged", "debug|info|warning|error"),
    ] = "info"

    auth_said: bool = False

    @property
    def state(self) -> Path:
        """The state folder: the journal, keys, locks and bodies on their way."""
        return self.directory / STATE_FOLDER


def settings_table() -> Iterator[Setting]:
    """Yield every setting, grouped as the documentation shows them."""
    rows = [
        Setting(name, mark, field)
        for name, field in Settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Option)
    ]
    # Inherited fields come first in the model, yet belong between the others.
    return iter(sorted(rows, key=lambda row: _GROUPS.index(row.option.group)))
