"""Makes the store that the setting `records` names.

The first call opens it: an installation that keeps no records has no file.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.errors import ConfigError
from gateway.records.collection import Records
from gateway.records.sqlite_store import SqliteStore
from gateway.records.store import RecordStore, UnavailableStore
from gateway.settings import Settings

FILE: Final = "records.db"


def open_records(settings: Settings, *, file_is_local: bool = True) -> Records:
    """Return the records of an installation; `file_is_local`: the file is on this machine.

    Raises `ConfigError` where the setting needs what is not installed.
    """
    chosen = settings.records.get_secret_value()
    if chosen != "file":
        return Records(_postgres(chosen))
    if not file_is_local:
        return Records(
            UnavailableStore(
                "the records are in a file of the gateway's machine, and this --directory is not that of"
                " a gateway: give gateways and workers the same --records postgresql://..."
            )
        )
    return Records(SqliteStore(settings.state / FILE))


def secrets_of(settings: Settings) -> list[str]:
    """Return what must be masked in texts: the URL of a database and the password in it."""
    chosen = settings.records.get_secret_value()
    password = urlsplit(chosen).password
    return [chosen, password, unquote(password)] if password else []


def _postgres(url: str) -> RecordStore:
    try:
        from gateway.records.postgres_store import PostgresStore
    except ImportError as fault:
        raise ConfigError(
            f"records in PostgreSQL need a package that is missing ({fault}): "
            "run pip install '.[postgres]' in the checkout"
        ) from fault
    return PostgresStore(url)
