"""Settings: the part of the table that tells where uploads are kept.

The rule is that of `table`, whose model these fields are part of.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from gateway.settings import values
from gateway.settings.events import EVENTS
from gateway.settings.option import Option
from gateway.settings.values import Bucket


class StorageSettings(BaseModel):
    """The settings of the storage. `storage` is `"file"` or a `Bucket` (its name and a prefix)."""

    storage: Annotated[
        Literal["file"] | Bucket,
        BeforeValidator(values.storage),
        Option(
            EVENTS,
            "where uploads are kept: below DIRECTORY, or in a bucket of an S3 server below a prefix",
            "file|s3://BUCKET[/PREFIX]",
        ),
    ] = "file"
    storage_memory: Annotated[
        int,
        Field(ge=16 << 20),
        BeforeValidator(values.size),
        Option(
            EVENTS,
            "what uploads on their way into S3 may hold in memory, in each process",
            "SIZE",
            shown="16MiB",
        ),
    ] = 16 << 20
    storage_public_url: Annotated[
        str | None,
        BeforeValidator(values.base_url),
        Option(
            EVENTS,
            "what presigned URLs of the bucket begin with, where clients reach its server otherwise",
            "URL",
            shown="as the gateway reaches it",
        ),
    ] = None
