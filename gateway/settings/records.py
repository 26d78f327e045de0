"""Settings: the part of the table that tells where scripts keep their records.

The rule is that of `table`, whose model this field is part of.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr

from gateway.settings.events import EVENTS
from gateway.settings.option import Option

_SCHEMES: Final = frozenset({"postgresql", "postgres"})


def record_store(value: SecretStr) -> SecretStr:
    """Where records are kept: `file`, or `postgresql://[user[:password]@]host[:port]/database`."""
    text = value.get_secret_value()
    if text == "file":
        return value
    parts = urlsplit(text)
    if parts.scheme not in _SCHEMES or len(parts.path) < 2:
        raise ValueError("must be file, or look like postgresql://user:password@host/database")
    _ = parts.port  # out of range raises ValueError
    return value


class RecordSettings(BaseModel):
    """The setting of records."""

    records: Annotated[
        SecretStr,
        AfterValidator(record_store),
        Option(
            EVENTS,
            "where scripts keep records: a file of this machine, or PostgreSQL",
            "file|postgresql://USER:PASSWORD@HOST/DATABASE",
            shown="file",
            secret=True,
        ),
    ] = Field(default=SecretStr("file"))
