"""Which keys a webhook's YAML may have, and of which type."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from gateway.plugins.model_types import KeyEnds, Seconds, Strict
from gateway.plugins.models import RetryModel
from gateway.plugins.testing_models import HandlerTestModel
from gateway.plugins.yaml_documents import SecretToken

WebhookEvent = Literal[
    "APIGW.OnFileUploading",
    "APIGW.OnFileReceived",
    "APIGW.OnFileUploaded",
    "APIGW.OnFileUploadFailed",
    "APIGW.OnFileDownloading",
    "APIGW.OnFileListing",
    "APIGW.OnFileDeleting",
    "APIGW.OnFileDeleted",
    "APIGW.OnObjectCreated",
]
"""Every event but `Schedule`."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("must be letters, digits, - and _, and begin with a letter")
    return text


def _text(value: object) -> object:
    if not isinstance(value, str | SecretToken):
        raise ValueError("should be a text")
    return value


def _once(events: list[str]) -> list[str]:
    if len(set(events)) != len(events):
        raise ValueError("has an event twice: remove one")
    return events


Text = Annotated[Any, BeforeValidator(_text), WithJsonSchema({"type": "string"})]
"""A text, which may hold references or be a `!secret`."""


class WebhookKeys(Strict):
    """Where a webhook sends which events, and how they are signed."""

    url: Text = Field(description="http:// or https://; may hold ${env:NAME} and ${file:PATH}")
    events: Annotated[
        list[WebhookEvent],
        AfterValidator(_once),
        Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    ] = Field(description="The events that are sent")
    secret: Text | Annotated[list[Text], Field(min_length=1, max_length=2)] | None = Field(
        None,
        description="whsec_ and base64 (Standard Webhooks); two while rotating: both sign."
        " ${env:NAME}, ${file:PATH} or !secret",
    )
    headers: dict[str, Text] = Field(default_factory=dict, description="Headers of every request")
    decide: bool = Field(False, description="The answer decides about events that decide")
    prefix: KeyEnds | None = Field(
        None, description="What paths of files must begin with, or a list of such texts"
    )
    suffix: KeyEnds | None = Field(
        None, description="What paths of files must end with, or a list of such texts"
    )


class WebhookTestModel(HandlerTestModel):
    """A test of a webhook that `gateway check` runs; `callout` has the answer of the receiver."""

    type: WebhookEvent | None = Field(
        None, description="The event; needed where the webhook has several"
    )


class WebhookModel(Strict):
    """A webhook: events are sent to a URL."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        description="Letters, digits, - and _: the name of the handler in the journal"
    )
    webhook: WebhookKeys
    timeout: Seconds | None = Field(
        None, description="Seconds for the whole answer; 10, 60 or 30 by event"
    )
    on_error: Literal["deny", "allow", "hold"] = Field(
        "deny",
        description="Events that decide: what a failed request means; OnFileReceived: `hold` responds"
        " 202, and the receiver is asked again from the journal",
    )
    authorization: Literal["keep"] | None = Field(
        None, description="Events that decide: the default authorization stays in force"
    )
    hold: bool = Field(
        False,
        description="OnFileReceived: the file is held, and the answer decides while nobody waits",
    )
    shadow: bool = Field(
        False,
        description="Events that decide: its answer is compared with what counts, and never counts",
    )
    retry: RetryModel = Field(default_factory=RetryModel, description="Events that are journalled")
    concurrency: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Events that are journalled (4): requests at the same time",
    )
    tests: list[WebhookTestModel] = Field(default_factory=list)
