"""Which keys a plugin's YAML may have, and of which type.

The JSON Schema that editors read is generated from these models.
"""

from __future__ import annotations

import keyword
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from gateway.domain.model import (
    DELETED,
    DELETING,
    DOWNLOADING,
    LISTING,
    OBJECT_CREATED,
    RECEIVED,
    SCHEDULE,
    UPLOAD_FAILED,
    UPLOADED,
    UPLOADING,
)
from gateway.domain.schedules import parse_cron, parse_every, zone
from gateway.plugins.model_types import KeyEnds, Seconds, Strict
from gateway.plugins.testing_models import HandlerTestModel

EventName = Literal[
    "APIGW.OnFileUploading",
    "APIGW.OnFileReceived",
    "APIGW.OnFileUploaded",
    "APIGW.OnFileUploadFailed",
    "APIGW.OnFileDownloading",
    "APIGW.OnFileListing",
    "APIGW.OnFileDeleting",
    "APIGW.OnFileDeleted",
    "APIGW.OnObjectCreated",
    "Schedule",
]
EVENTS: Final = (
    UPLOADING,
    RECEIVED,
    UPLOADED,
    UPLOAD_FAILED,
    DOWNLOADING,
    LISTING,
    DELETING,
    DELETED,
    OBJECT_CREATED,
    SCHEDULE,
)
ADMITTING: Final = (UPLOADING, DOWNLOADING, LISTING, DELETING)
"""Events whose handlers decide whether a request may go on, from its head alone."""

DECIDING: Final = (*ADMITTING, RECEIVED)
"""Events whose handlers decide: those, and about a whole file that nobody can read yet."""

DELIVERED: Final = (UPLOADED, DELETED, OBJECT_CREATED, SCHEDULE)
"""Events that are journalled, and delivered at least once."""

WITH_FILE: Final = (RECEIVED, UPLOADED, OBJECT_CREATED, DOWNLOADING, DELETING)
"""Events about a file that their handlers can read."""

DEFAULT_TIMEOUT: Final = {
    UPLOADING: 10.0,
    DOWNLOADING: 10.0,
    LISTING: 10.0,
    DELETING: 10.0,
    RECEIVED: 60.0,
    UPLOADED: 3600.0,
    DELETED: 3600.0,
    OBJECT_CREATED: 3600.0,
    UPLOAD_FAILED: 60.0,
    SCHEDULE: 3600.0,
}
"""Default time-out of the handlers of each event, in seconds; with `hold` see `HOLD_TIMEOUT`."""

HOLD_TIMEOUT: Final = DEFAULT_TIMEOUT[UPLOADED]
"""Default time-out of a handler with `hold`, in seconds: it runs from the journal."""

DEFAULT_CONCURRENCY: Final = {RECEIVED: 4, UPLOADED: 4, DELETED: 4, OBJECT_CREATED: 4, SCHEDULE: 1}
"""Default number of runs of a handler at the same time; other events have no limit."""

APPLIES: Final = {
    "on_error": DECIDING,
    "hold": (RECEIVED,),
    "shadow": DECIDING,
    "authorization": ADMITTING,
    "prefix": (OBJECT_CREATED,),
    "suffix": (OBJECT_CREATED,),
    "retry": (*DELIVERED, RECEIVED),
    "concurrency": (*DELIVERED, RECEIVED),
    "cron": (SCHEDULE,),
    "every": (SCHEDULE,),
    "timezone": (SCHEDULE,),
    "catch_up": (SCHEDULE,),
}
"""Keys that have a meaning for some events only."""

WITH_HOLD: Final = ("retry", "concurrency")
"""Keys that OnFileReceived has with `hold: true` or `on_error: hold` only."""

WITHOUT_HOLD: Final = ("on_error",)
"""Keys that exclude `hold: true`."""


def _function_name(name: str) -> str:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError("must be a name that a Python function can have")
    return name


def _zone_name(name: str) -> str:
    zone(name)
    return name


def _interval(text: str) -> str:
    parse_every(text)
    return text


class RetryModel(Strict):
    """How often a failing handler runs again, with pauses that double."""

    attempts: int = Field(8, ge=1, le=1000, description="Total number of runs")
    backoff: Seconds = Field(1.0, description="Seconds before the second run")
    max_backoff: Seconds = Field(300.0, description="Longest pause in seconds")


class HandlerModel(Strict):
    """A handler of an event."""

    name: Annotated[str, AfterValidator(_function_name)] = Field(
        description="Name of the function in the script"
    )
    event: EventName
    script: str = Field(description="Python with `async def <name>(event, handle)`")
    timeout: Seconds | None = Field(None, description="Seconds; 10, 3600 or 60 by event")
    hold: bool = Field(
        False,
        description="OnFileReceived: respond 202; the handler decides from the journal, then the file is"
        " published or removed",
    )
    cron: Annotated[str, AfterValidator(parse_cron)] | None = Field(
        None, description="Schedule: minute, hour, day of month, month, day of week"
    )
    every: Annotated[str, AfterValidator(_interval)] | None = Field(
        None, description="Schedule: 10s, 15m, 1h or 7d, counted from the Unix epoch"
    )
    timezone: Annotated[str, AfterValidator(_zone_name)] = Field(
        "UTC", description="Schedule: time zone of `cron`, such as Europe/Rome"
    )
    catch_up: bool = Field(False, description="Schedule: run once for ticks missed while stopped")
    on_error: Literal["deny", "allow", "hold"] = Field(
        "deny",
        description="Events that decide: what the failure of a handler means; OnFileReceived: `hold`"
        " responds 202, and the handler runs again from the journal",
    )
    authorization: Literal["keep"] | None = Field(
        None,
        description="Events that decide: the default authorization stays in force",
    )
    prefix: KeyEnds | None = Field(
        None, description="OnObjectCreated: what keys must begin with, or a list of such texts"
    )
    suffix: KeyEnds | None = Field(
        None, description="OnObjectCreated: what keys must end with, or a list of such texts"
    )
    shadow: bool = Field(
        False,
        description="Events that decide: its decision is compared with the real one, and never counts",
    )
    retry: RetryModel = Field(
        default_factory=RetryModel, description="Events that are journalled, and `hold`"
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Events that are journalled, and `hold` (4, Schedule 1): runs at the same time",
    )
    tests: list[HandlerTestModel] = Field(default_factory=list)


class ConfigModel(Strict):
    """Values that scripts read with `get_service_config`."""

    name: str = Field(min_length=1)
    config: dict[str, Any] = Field(
        description="Strings may hold ${env:NAME} and ${file:PATH}; the path is relative to this file"
    )


if set(EVENTS) != set(DEFAULT_TIMEOUT):
    raise AssertionError("the tables of this module disagree")
