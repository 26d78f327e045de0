"""Settings: the part of the table that tells whose notifications of objects are taken.

The rule is that of `table`, whose model these fields are part of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field

from gateway.settings.events import EVENTS
from gateway.settings.option import Option

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)


def bucket_name(name: str) -> str:
    """The name of a bucket, without `s3://`."""
    if not _BUCKET.fullmatch(name):
        raise ValueError("must be the name of a bucket, without s3:// and without a prefix")
    return name


class ObjectSettings(BaseModel):
    """The settings of notifications of objects."""

    notifications_secret_file: Annotated[
        Path | None,
        Option(
            EVENTS,
            "secrets, one a line, with which object stores send notifications",
            "FILE",
            path=True,
        ),
    ] = None
    object_buckets: Annotated[
        tuple[Annotated[str, AfterValidator(bucket_name)], ...],
        Option(
            EVENTS,
            "buckets beside the storage's whose notifications are taken (repeatable)",
            "BUCKET",
        ),
    ] = ()
    reconcile_after: Annotated[
        float,
        Field(ge=1, le=86400, allow_inf_nan=False),
        Option(
            EVENTS,
            "how long the notification of an object put by a presigned URL is waited for",
            "SECONDS",
        ),
    ] = 120.0
