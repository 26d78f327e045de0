"""The table of settings: a field is a flag, an environment variable, a file key and a line of docs.

Name, type, default and help of a setting stand in its field and nowhere else. The groups of uploads,
access, pages, events and storage are in `uploads`, `access`, `web` and `events`.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, SecretStr

from gateway.domain import paths
from gateway.domain.addresses import Address
from gateway.domain.path_template import UploadPathTemplate
from gateway.settings import values
from gateway.settings.access import ACCESS, JWT, AccessSettings
from gateway.settings.cores import MAX_PROCESSES, process_count
from gateway.settings.events import EVENTS, EventAndStorageSettings
from gateway.settings.option import Option, Seconds, Setting
from gateway.settings.quotas import LIMITS, QuotaSettings
from gateway.settings.uploads import DOWNLOADS, UPLOADS, UploadSettings
from gateway.settings.web import CONSOLE, OIDC, WebSettings

STATE_FOLDER: Final = ".gateway"
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(values.network)]

_LISTENING: Final = "Listening"
_FILES: Final = "Folders and files"
_LOGS: Final = "Logs"
_TRACES: Final = "Traces"
_GROUPS: Final = (
    _LISTENING, _FILES, UPLOADS, DOWNLOADS, ACCESS, JWT, CONSOLE, OIDC, LIMITS, EVENTS, _LOGS, _TRACES,
)  # fmt: skip


class Settings(UploadSettings, AccessSettings, WebSettings, EventAndStorageSettings, QuotaSettings):
    """Every setting of a gateway, checked and frozen. Paths are absolute, times seconds, sizes bytes.

    `auth_explicit` and `directory_explicit` are whether that was set, rather than left at its default;
    settings in `config/gateway.yaml` of the current folder choose the folder too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[
        str, BeforeValidator(values.host), Option(_LISTENING, "address to listen on", "HOST")
    ] = "127.0.0.1"
    port: Annotated[
        int, Field(ge=0, le=65535), Option(_LISTENING, "port to listen on; 0 picks a free one", "PORT")
    ] = 8080
    tls_cert: Annotated[
        Path | None,
        Option(
            _LISTENING, "certificate chain (PEM): serve HTTPS; reloaded on SIGHUP", "FILE", path=True
        ),
    ] = None
    tls_key: Annotated[
        Path | None, Option(_LISTENING, "private key (PEM) of the certificate", "FILE", path=True)
    ] = None
    tls_client_ca: Annotated[
        Path | None,
        Option(
            _LISTENING,
            "certificates (PEM) of which one must have signed that of each client; reloaded on SIGHUP",
            "FILE",
            path=True,
            page="client-certificates",
        ),
    ] = None
    public_url: Annotated[
        str | None,
        BeforeValidator(values.base_url),
        Option(
            _LISTENING,
            "base URL of links in responses",
            "URL",
            shown="the advertised address",
            secret=True,
        ),
    ] = None
    advertise: Annotated[
        Address | None,
        BeforeValidator(values.address),
        Option(
            _LISTENING,
            "address and port by which events, peers and workers refer to this gateway",
            "HOST:PORT",
            shown="the bound address",
        ),
    ] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Option(
            _LISTENING,
            "proxies whose Forwarded and X-Forwarded-* headers are trusted (repeatable)",
            "CIDR",
        ),
    ] = ()
    short_path: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(_LISTENING, "serve whole small requests at once, without a task for each", "true|false"),
    ] = True
    grace: Annotated[
        Seconds, Option(_LISTENING, "how long a stop waits for running uploads", "TIME")
    ] = 30.0

    directory: Annotated[
        Path,
        Option(
            _FILES, "root of stored files: path /upload/a is DIRECTORY/upload/a", "DIR", ".", path=True
        ),
    ] = Field(default_factory=Path.cwd)
    config: Annotated[
        Path | None,
        Option(
            _FILES,
            "settings file",
            "FILE",
            "config/gateway.yaml below DIRECTORY, if there",
            True,
            False,
            False,
        ),
    ] = None
    plugins: Annotated[
        tuple[Annotated[Path, BeforeValidator(values.plugin_folder)], ...],
        Option(
            _FILES,
            "folder of YAML plugins, read recursively, or builtin:NAME for a shipped set (repeatable)",
            "DIR",
            path=True,
            separator=":",
        ),
    ] = ()
    installation_key_file: Annotated[
        Path | None,
        Option(
            _FILES,
            "key of internal credentials, signed URLs and object marks; the same on all nodes",
            "FILE",
            shown="in the state folder",
            path=True,
        ),
    ] = None

    peers: Annotated[
        tuple[Annotated[Address, BeforeValidator(values.address)], ...],
        Option(
            _FILES,
            "advertised address of another gateway of this installation (repeatable)",
            "HOST:PORT",
        ),
    ] = ()
    secrets_key_file: Annotated[
        Path | None,
        Option(
            _FILES,
            "keys of !secret values, one per line; the first one encrypts. Only the owner may read it",
            "FILE",
            path=True,
        ),
    ] = None
    secrets_key: Annotated[
        tuple[Annotated[SecretStr, AfterValidator(values.secrets_key)], ...],
        Field(repr=False),
        Option(
            _FILES,
            "the same keys, separated by commas; they precede those of the file",
            "KEY",
            secret=True,
            in_file=False,
            in_flags=False,
        ),
    ] = ()

    max_bytes: Annotated[
        int | None,
        Field(ge=1),
        BeforeValidator(values.size_or_none),
        Option(LIMITS, "largest upload, such as 10G", "SIZE", shown="none"),
    ] = None
    max_new_folders: Annotated[
        int,
        Field(ge=1, le=100),
        Option(LIMITS, "folders that are created for one upload; a path that needs more: 400", "N"),
    ] = paths.MAX_NEW_FOLDERS
    min_free_bytes: Annotated[
        int,
        Field(ge=0),
        BeforeValidator(values.size),
        Option(LIMITS, "disk space that uploads leave free", "SIZE", shown="64MiB"),
    ] = 64 * 1024**2
    idle_timeout: Annotated[
        Seconds,
        Field(gt=0, allow_inf_nan=False),
        Option(LIMITS, "how long a client may pause within a request body", "TIME"),
    ] = 60.0
    min_rate: Annotated[
        int,
        Field(ge=0),
        BeforeValidator(values.size),
        Option(
            LIMITS,
            "bytes a second that a client must send or read, judged over each minute of waiting for it; "
            "0: any rate",
            "SIZE",
            shown="1KiB",
        ),
    ] = 1024
    max_header_bytes: Annotated[
        int,
        Field(ge=1024, le=1 << 20),
        BeforeValidator(values.size),
        Option(LIMITS, "request line and header lines of a request together", "SIZE", shown="32KiB"),
    ] = 32 * 1024
    processes: Annotated[
        int,
        Field(ge=1, le=MAX_PROCESSES),
        BeforeValidator(process_count),
        Option(
            LIMITS,
            "server processes that share the port; auto: one for each core that the gateway may use",
            "N|auto",
            page="use-all-cores",
        ),
    ] = 1

    log_format: Annotated[
        Literal["text", "json"] | None,
        Option(_LOGS, "format of log lines", "text|json", "text on a terminal, else json"),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Option(_LOGS, "lowest level that is logged", "debug|info|warning|error"),
    ] = "info"

    otlp: Annotated[
        str | None,
        BeforeValidator(values.base_url),
        Option(
            _TRACES,
            "send traces to the OpenTelemetry collector at this base URL (OTLP over HTTP), such as"
            " http://127.0.0.1:4318; needs the extra `otel`",
            "URL",
            secret=True,
            page="trace",
        ),
    ] = None

    auth_explicit: bool = False
    directory_explicit: bool = False

    @property
    def upload_template(self) -> UploadPathTemplate:
        """The upload path, and where its files are stored."""
        return UploadPathTemplate.parse(self.file_upload_api_path, self.stored_path)

    @property
    def state(self) -> Path:
        """The state folder: the journal, keys, locks and bodies of running uploads."""
        return self.directory / STATE_FOLDER


def settings_table() -> Iterator[Setting]:
    """Yield every setting, grouped as the documentation shows them."""
    rows = [
        Setting(name, mark, field)
        for name, field in Settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Option)
    ]
    # The model lists inherited fields first; the sort is stable.
    return iter(sorted(rows, key=lambda row: _GROUPS.index(row.option.group)))
