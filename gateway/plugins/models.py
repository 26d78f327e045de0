"""Which keys a plugin's YAML may have, and of which type.

The JSON Schema that editors read is generated from these models.
"""

from __future__ import annotations

import keyword
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

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
    OnConflict,
)
from gateway.domain.schedules import parse_cron, parse_every, zone
from gateway.domain.units import parse_duration, parse_size

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
"""Keys that OnFileReceived has with `hold: true` only."""

WITHOUT_HOLD: Final = ("on_error",)
"""Keys that exclude `hold: true`."""


def _seconds(value: object) -> object:
    """Return the seconds of `10m`; a text without a unit is no number. Raises `ValueError`."""
    return parse_duration(value) if isinstance(value, str) and value[-1:].isalpha() else value


def _bytes(value: object) -> object:
    """Return the bytes of `10M`; a text without a unit is no number. Raises `ValueError`."""
    return parse_size(value) if isinstance(value, str) and value[-1:].isalpha() else value


KeyPart = Annotated[str, Field(min_length=1, max_length=1024)]
KeyEnds = KeyPart | Annotated[list[KeyPart], Field(min_length=1, max_length=100)]
Seconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=float | str),
    Field(gt=0, le=30 * 86400, allow_inf_nan=False),
]
"""A number of seconds, or a text with a unit."""

Bytes = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=int | str)]
"""A number of bytes, or a text with a unit."""

Items = dict[str, dict[str, Any]]


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


class Strict(BaseModel):
    """No unknown keys and no conversions: `"10"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class RetryModel(Strict):
    """How often a failing handler runs again, with pauses that double."""

    attempts: int = Field(8, ge=1, le=1000, description="Total number of runs")
    backoff: Seconds = Field(1.0, description="Seconds before the second run")
    max_backoff: Seconds = Field(300.0, description="Longest pause in seconds")


class AnswerModel(Strict):
    """The response of a stubbed callout."""

    code: int = Field(200, ge=100, le=599)
    body: Any = Field(None, description="Text, or a dict or list that is sent as JSON")
    headers: dict[str, str] = Field(default_factory=dict)


class CalledModel(Strict):
    """An expected callout; keys that are not given are not compared."""

    endpoint: str | None = None
    path: str | None = None
    method: str | None = None
    body: Any = None
    headers: dict[str, str] | None = None


class ExpectModel(Strict):
    """The expected result of a handler; keys that are not given are not compared."""

    path: str | None = Field(None, description="The path after the handler")
    max_bytes: int | None = None
    on_conflict: OnConflict | None = None
    status: int | None = Field(None, ge=100, le=599, description="The code of terminate()")
    output: Any = Field(None, description="The output of terminate()")
    callouts: list[CalledModel] | None = Field(None, description="All callouts, in order")
    records: Items | None = Field(
        None, description="Items afterwards: collection to key to item, null for none"
    )
    raises: bool = Field(False, description="The handler must fail")


class HandlerTestModel(Strict):
    """A test that `gateway check` runs."""

    name: str
    event: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the event; the others have defaults"
    )
    configs: Items = Field(default_factory=dict, description="Config plugins of the test")
    callout: list[AnswerModel] = Field(default_factory=list, description="Stubbed responses, in order")
    records: dict[str, Items] = Field(
        default_factory=dict, description="Items before: collection to key to item"
    )
    expect: ExpectModel


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
    on_error: Literal["deny", "allow"] = Field(
        "deny", description="Events that decide: what the failure of a handler means"
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
