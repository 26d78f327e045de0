"""A handler of an event, made of its document.

Whatever can be wrong with it is reported at load: a handler that exists can be called.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from gateway.domain.model import HandlerSpec, RetryPolicy
from gateway.domain.schedules import Cron, Every, Schedule, parse_every
from gateway.errors import ConfigError
from gateway.plugins.models import (
    ADMITTING,
    DEFAULT_CONCURRENCY,
    DEFAULT_TIMEOUT,
    HandlerModel,
    HandlerTestModel,
)
from gateway.plugins.scripting.compile import compile_source, provide_get_session
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, run_script
from gateway.plugins.scripting.trace import place_of_error
from gateway.plugins.scripting.values import Event
from gateway.plugins.yaml_documents import Document

Function = Callable[[Event, Handle], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler of one event. `timeout` in seconds; `file` and `line` say where its document begins.

    `schedule` is there for the event `Schedule` only, `prefix` and `suffix` for `OnObjectCreated`.
    """

    name: str
    event: str
    timeout: float
    on_error: str
    keeps_authorization: bool
    retry: RetryPolicy
    concurrency: int
    prefix: tuple[str, ...]
    suffix: tuple[str, ...]
    schedule: Schedule | None
    tests: tuple[HandlerTestModel, ...]
    file: str
    line: int
    function: Function = field(repr=False)
    code: CodeType = field(repr=False)
    document: Document = field(repr=False)

    @property
    def spec(self) -> HandlerSpec:
        """What the runner of deliveries needs."""
        return HandlerSpec(
            self.name,
            self.event,
            self.timeout,
            self.concurrency,
            self.retry,
            self.prefix,
            self.suffix,
        )

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
        if self.event not in ADMITTING:
            return text
        keeps = self.keeps_authorization
        return f"{text}, {'keeps' if keeps else 'replaces'} the default authorization"


def make_handler(document: Document, model: HandlerModel, context: PluginContext) -> Handler:
    """Compile a handler's script and run its top-level code. Raises `ConfigError` with the line."""
    code = compile_source(document.source("script"))
    provide_get_session(model.script)
    names = _run_top_level(document, code, ScriptContext(model.name, document.folder, context))
    return Handler(
        name=model.name,
        event=model.event,
        timeout=model.timeout or DEFAULT_TIMEOUT[model.event],
        on_error=model.on_error,
        keeps_authorization=model.authorization == "keep",
        retry=RetryPolicy(model.retry.attempts, model.retry.backoff, model.retry.max_backoff),
        concurrency=model.concurrency or DEFAULT_CONCURRENCY.get(model.event, 1),
        prefix=_as_tuple(model.prefix),
        suffix=_as_tuple(model.suffix),
        schedule=_schedule(model),
        tests=tuple(model.tests),
        file=str(document.file),
        line=document.line(),
        function=_function(document, model.name, names),
        code=code,
        document=document,
    )


def _as_tuple(texts: str | list[str] | None) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts or ())


def _schedule(model: HandlerModel) -> Schedule | None:
    if model.cron is not None:
        return Cron(model.cron, model.timezone, model.catch_up)
    if model.every is not None:
        return Every(parse_every(model.every), model.catch_up)
    return None


def _run_top_level(document: Document, code: CodeType, context: ScriptContext) -> dict[str, Any]:
    try:
        return run_script(code, context)
    except (Exception, SystemExit, GeneratorExit, asyncio.CancelledError) as error:
        file, line = place_of_error(error) or (str(document.file), document.line("script"))
        text = context.plugin.configs.mask(f"{type(error).__name__}: {error}")
        raise ConfigError(f"the script's top-level code raised {text}", file, line) from None


def _function(document: Document, name: str, names: dict[str, Any]) -> Function:
    function = names.get(name)
    if function is None:
        raise document.error(f"the script has no `async def {name}(event, handle)`: add it", "script")
    if not inspect.iscoroutinefunction(function):
        code = getattr(function, "__code__", None)
        line = code.co_firstlineno if isinstance(code, CodeType) else document.line("script")
        raise ConfigError(
            f"`{name}` is not asynchronous: write `async def {name}(event, handle)`",
            str(document.file),
            line,
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        line = function.__code__.co_firstlineno
        raise ConfigError(
            f"`{name}` must take two arguments: `async def {name}(event, handle)`",
            str(document.file),
            line,
        ) from None
    checked: Function = function
    return checked
