"""One handler of one event: what a plugin with a script, or a webhook, is loaded as."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from gateway.domain.model import RECEIVED, HandlerSpec, RetryPolicy
from gateway.domain.schedules import Schedule
from gateway.plugins.models import ADMITTING
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.values import Event
from gateway.plugins.testing_models import HandlerTestModel
from gateway.plugins.yaml_documents import Document

Function = Callable[[Event, Handle], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler of one event. `timeout` in seconds; `file` and `line` say where its document begins.

    `schedule` is there for the event `Schedule` only, `prefix` and `suffix` for `OnObjectCreated` and
    for webhooks. `suspends` is False for a function that never waits. `hold`: it decides from the
    journal, while no client waits; with `on_error` `hold` that is so once it has failed. `shadow`: its
    decision is compared and never counts. A webhook has a `url` and no `code`.
    """

    name: str
    event: str
    timeout: float
    on_error: str
    keeps_authorization: bool
    hold: bool
    shadow: bool
    retry: RetryPolicy
    concurrency: int
    prefix: tuple[str, ...]
    suffix: tuple[str, ...]
    schedule: Schedule | None
    tests: tuple[HandlerTestModel, ...]
    file: str
    line: int
    suspends: bool
    function: Function = field(repr=False)
    code: CodeType | None = field(repr=False)
    document: Document = field(repr=False)
    url: str | None = None

    @property
    def spec(self) -> HandlerSpec:
        """What the runner of deliveries needs."""
        return HandlerSpec(
            self.name, self.event, self.timeout, self.concurrency, self.retry, self.prefix, self.suffix
        )

    def matches(self, path: str) -> bool:
        """Return whether the handler subscribes to the file, or to any in the folder, at `path`."""
        if not self.prefix and not self.suffix:
            return True
        key = path.removeprefix("/")
        if key and not key.endswith("/"):
            return self.spec.matches_key(key)
        return not self.prefix or any(
            key.startswith(prefix) or prefix.startswith(key) for prefix in self.prefix
        )

    @property
    def may_hold(self) -> bool:
        """Whether it may decide from the journal before a file is visible."""
        return self.hold or self.on_error == "hold"

    @property
    def place(self) -> str:
        """Return `file:line`."""
        return f"{self.file}:{self.line}"

    def describe(self) -> str:
        """Return the line that is printed at start."""
        text = f"{self.event} -> {self.name} ({self.place})"
        if self.schedule is not None:
            return f"{text}, {self.schedule}"
        for word, ends in (("prefix", self.prefix), ("suffix", self.suffix)):
            text += f", {word} {' or '.join(ends)}" if ends else ""
        text += f", webhook {self.url}" if self.url is not None else ""
        if self.event == RECEIVED:
            text += (
                ", holds the file until it has decided"
                if self.hold
                else ", decides while the client waits"
            )
        if self.shadow:
            text += ", a shadow: its decision does not count"
        elif self.event in ADMITTING:
            text += f", {'keeps' if self.keeps_authorization else 'replaces'} the default authorization"
        return text
