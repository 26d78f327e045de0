"""Which keys the `tests:` of a plugin may have, and of which type."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from gateway.domain.model import OnConflict
from gateway.plugins.model_types import Configs, ExpectedItems, FileContents, Items, Moment, Strict


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


class ExpectedStores(Strict):
    """What a script must have called and stored; keys that are not given are not compared."""

    callouts: list[CalledModel] | None = Field(None, description="All callouts, in order")
    records: ExpectedItems | None = Field(
        None, description="Items afterwards: collection to key to item, null for none"
    )
    files: FileContents | None = Field(
        None,
        description="Files afterwards: path to text or JSON, true for any content, null for no file",
    )


class ExpectModel(ExpectedStores):
    """The expected result of a handler; keys that are not given are not compared."""

    path: str | None = Field(None, description="The path after the handler")
    max_bytes: int | None = None
    on_conflict: OnConflict | None = None
    metadata: dict[str, str] | None = Field(None, description="OnFileReceived: all of it afterwards")
    status: int | None = Field(None, ge=100, le=599, description="The code of terminate()")
    output: Any = Field(None, description="The output of terminate()")
    result: dict[str, Any] | None = Field(None, description="What handle.result() left, null for none")
    raises: bool = Field(False, description="The handler must fail")


class StubsModel(Strict):
    """What surrounds the script of a test."""

    name: str
    configs: Configs = Field(
        default_factory=dict, description="Config plugins; those of the folders if not given"
    )
    callout: list[AnswerModel] = Field(default_factory=list, description="Stubbed responses, in order")
    records: Items = Field(default_factory=dict, description="Items before: collection to key to item")
    files: FileContents = Field(
        default_factory=dict, description="Files before: path to text, or to a dict or list that is JSON"
    )
    now: Moment | None = Field(
        None, description="The time, such as 2026-11-22T08:00:00Z; the real one if not given"
    )


class HandlerTestModel(StubsModel):
    """A test that `gateway check` runs."""

    event: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the event; the others have defaults"
    )
    body: Any = Field(None, description="The file: text, or a dict or list that is JSON")
    body_file: str | None = Field(
        None, min_length=1, description="The file: a path, relative to this file"
    )
    expect: ExpectModel

    @property
    def has_body(self) -> bool:
        """Whether the test gives a file for its event."""
        return bool(self.model_fields_set & {"body", "body_file"})

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if {"body", "body_file"} <= self.model_fields_set:
            raise ValueError("`body` and `body_file` exclude each other: remove one")
        return self
