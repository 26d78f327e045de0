"""Settings of events, storage, notifications and records. See `table` for how a setting is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr

from gateway.settings import values
from gateway.settings.option import Option, Seconds
from gateway.settings.values import Bucket

EVENTS: Final = "Events and storage"


class EventAndStorageSettings(BaseModel):
    """The group of events and storage. `storage` is `"file"` or a `Bucket` (its name and a prefix)."""

    events: Annotated[
        str,
        BeforeValidator(values.engine),
        Option(
            EVENTS,
            "event queue: the embedded journal, or NATS JetStream behind it",
            "journal|nats://HOST[:PORT][,...]",
            secret=True,
        ),
    ] = "journal"
    events_credentials: Annotated[
        Path | None,
        Option(
            EVENTS,
            "NATS credentials: one line with user:password or a token, or a .creds file",
            "FILE",
            path=True,
        ),
    ] = None
    events_ca: Annotated[
        Path | None, Option(EVENTS, "CA certificates of the NATS servers (PEM)", "FILE", path=True)
    ] = None
    events_prefix: Annotated[
        str,
        AfterValidator(values.subject_token),
        Option(EVENTS, "prefix of names in NATS, so that installations can share servers", "NAME"),
    ] = "apigw"
    events_replicas: Annotated[
        int | None,
        Field(ge=1, le=5),
        Option(EVENTS, "copies of each stream in NATS", "N", shown="one per named server, at most 3"),
    ] = None
    events_max_bytes: Annotated[
        int | None,
        Field(ge=1 << 16),
        BeforeValidator(values.size_or_none),
        Option(
            EVENTS,
            "size limit of the queue in NATS; further events wait in the journals",
            "SIZE",
            shown="none",
        ),
    ] = None
    events_lease: Annotated[
        Seconds,
        Field(ge=1, allow_inf_nan=False),
        Option(EVENTS, "how long a node may be unresponsive before others run its deliveries", "TIME"),
    ] = 30.0
    deliver: Annotated[
        Literal["here", "workers"],
        Option(EVENTS, "where handlers run: in this process too, or in workers only", "here|workers"),
    ] = "here"
    relayed_retention: Annotated[
        Seconds,
        Option(EVENTS, "how long deliveries relayed to NATS stay in the journal for replay", "TIME"),
    ] = 86400.0
    retention: Annotated[Seconds, Option(EVENTS, "how long finished deliveries stay listed", "TIME")] = (
        604800.0
    )
    storage: Annotated[
        Literal["file"] | Bucket,
        BeforeValidator(values.storage),
        Option(
            EVENTS,
            "where uploads are stored: below DIRECTORY, or in an S3 bucket under a prefix",
            "file|s3://BUCKET[/PREFIX]",
        ),
    ] = "file"
    storage_memory: Annotated[
        int,
        Field(ge=32 << 20),
        BeforeValidator(values.size),
        Option(EVENTS, "memory for running uploads to S3, per process", "SIZE", shown="128MiB"),
    ] = 128 << 20
    storage_public_url: Annotated[
        str | None,
        BeforeValidator(values.base_url),
        Option(
            EVENTS,
            "base URL of presigned URLs, if clients reach the S3 server under another address",
            "URL",
            shown="the S3 endpoint of the gateway",
        ),
    ] = None
    notifications_secret_file: Annotated[
        Path | None,
        Option(
            EVENTS,
            "secrets with which object stores authenticate notifications, one per line",
            "FILE",
            path=True,
        ),
    ] = None
    object_buckets: Annotated[
        tuple[Annotated[str, AfterValidator(values.bucket_name)], ...],
        Option(EVENTS, "further buckets whose notifications are accepted (repeatable)", "BUCKET"),
    ] = ()
    reconcile_after: Annotated[
        Seconds,
        Field(ge=1, le=86400, allow_inf_nan=False),
        Option(
            EVENTS,
            "how long to wait for the notification of a presigned upload before asking the bucket",
            "TIME",
        ),
    ] = 120.0
    records: Annotated[
        SecretStr,
        AfterValidator(values.record_store),
        Option(
            EVENTS,
            "where scripts store records: a file of this machine, or PostgreSQL",
            "file|postgresql://USER:PASSWORD@HOST/DATABASE",
            shown="file",
            secret=True,
        ),
    ] = Field(default=SecretStr("file"))
