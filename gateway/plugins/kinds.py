"""The kinds of plugins: which keys make a document which kind, and the handler of an event.

Whatever can be wrong with a plugin is reported at load: a handler that exists can be called. A new kind
is one more `Kind`. Routes are a kind of a higher package, which hands it to `Plugins`.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.domain.model import RetryPolicy
from gateway.domain.schedules import Cron, Every, Schedule, parse_every
from gateway.errors import ConfigError
from gateway.plugins.handler import Function, Handler
from gateway.plugins.handler_keys import check_keys
from gateway.plugins.models import (
    DEFAULT_CONCURRENCY,
    DEFAULT_TIMEOUT,
    HOLD_TIMEOUT,
    ConfigModel,
    HandlerModel,
)
from gateway.plugins.scripting.compile import compile_source, provide_get_session
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, run_script
from gateway.plugins.scripting.suspension import never_suspends
from gateway.plugins.scripting.trace import place_of_error
from gateway.plugins.yaml_documents import Document, PluginErrors

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ParsedPlugin:
    """A document that has been checked: its kind, its name, and its keys as a model."""

    kind: str
    name: str
    document: Document
    model: BaseModel

    def model_as(self, model: type[Model]) -> Model:
        """Return the model with its type. Raises `TypeError` for a model of another kind."""
        if not isinstance(self.model, model):
            raise TypeError(f"{self.kind} has no {model.__name__}")
        return self.model


class Plugin(Protocol):
    """What a kind makes of a document."""

    def describe(self) -> str:
        """Return the line that is printed at start."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin. A document is of this kind when it has one of `keys`.

    `make` makes a plugin of what `parse` returned, once all configs are loaded. `combine` makes one
    object of all plugins of the kind and finds those that contradict each other. All three raise
    `ConfigError`. `scripts` are the keys that hold code.
    """

    name: str
    keys: frozenset[str]
    parse: Callable[[Document], ParsedPlugin]
    make: Callable[[ParsedPlugin, PluginContext], Plugin] | None = None
    combine: Callable[[Sequence[Plugin]], object] | None = None
    scripts: tuple[str, ...] = ()


def validate(document: Document, model: type[Model]) -> Model:
    """Return the document as `model`. Raises `PluginErrors` with the line of each error, no values."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise PluginErrors([_config_error(document, model, detail) for detail in details]) from None


def parse(document: Document, kinds: Sequence[Kind]) -> ParsedPlugin:
    """Find the kind of a document and parse it. Raises `ConfigError`."""
    for kind in kinds:
        if kind.keys & document.data.keys():
            return kind.parse(document)
    keys = "; ".join(f"{kind.name}: {', '.join(sorted(kind.keys))}" for kind in kinds)
    raise document.error(f"no key tells which kind of plugin this is ({keys})")


_NO_SLASH: Final = "String should match pattern '^/'"
"""What pydantic says of a path."""


def _config_error(document: Document, model: type[BaseModel], detail: Mapping[str, Any]) -> ConfigError:
    where = detail["loc"]
    dotted = document.dotted(where)
    if detail["type"] == "extra_forbidden":
        return document.error(f"unknown key `{dotted}`{_advice(model, where)}", *where)
    if detail["type"] == "missing":
        return document.error(f"the key `{dotted}` is missing: add it", *where)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if message == _NO_SLASH:
        message = "must begin with a slash"
    return document.error(f"`{dotted}` {message}", *where)


def _advice(model: type[BaseModel], where: tuple[Any, ...]) -> str:
    if len(where) > 1:
        return ": remove it"
    near = difflib.get_close_matches(str(where[0]), model.model_fields, 1)
    return f": did you mean `{near[0]}`?" if near else f": the keys are {', '.join(model.model_fields)}"


def _parse_handler(document: Document) -> ParsedPlugin:
    model = validate(document, HandlerModel)
    check_keys(document, model)
    return ParsedPlugin(HANDLER, model.name, document, model)


def _make_handler(parsed: ParsedPlugin, context: PluginContext) -> Handler:
    """Compile a handler's script and run its top-level code. Raises `ConfigError` with the line."""
    document, model = parsed.document, parsed.model_as(HandlerModel)
    code = compile_source(document.source("script"))
    provide_get_session(model.script)
    names = _run_top_level(document, code, ScriptContext(model.name, document.folder, context))
    function = _function(document, model.name, names)
    return Handler(
        name=model.name,
        event=model.event,
        timeout=model.timeout or (HOLD_TIMEOUT if model.hold else DEFAULT_TIMEOUT[model.event]),
        on_error=model.on_error,
        keeps_authorization=model.authorization == "keep",
        hold=model.hold,
        shadow=model.shadow,
        retry=RetryPolicy(model.retry.attempts, model.retry.backoff, model.retry.max_backoff),
        concurrency=model.concurrency or DEFAULT_CONCURRENCY.get(model.event, 1),
        prefix=as_tuple(model.prefix),
        suffix=as_tuple(model.suffix),
        schedule=_schedule(model),
        tests=tuple(model.tests),
        file=str(document.file),
        line=document.line(),
        suspends=not never_suspends(function),
        function=function,
        code=code,
        document=document,
    )


def as_tuple(texts: str | list[str] | None) -> tuple[str, ...]:
    """Return the texts of a key that has one, several or none."""
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
        message = f"`{name}` is not asynchronous: write `async def {name}(event, handle)`"
        raise ConfigError(message, str(document.file), line)
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        message = f"`{name}` must take two arguments: `async def {name}(event, handle)`"
        raise ConfigError(message, str(document.file), function.__code__.co_firstlineno) from None
    checked: Function = function
    return checked


def _parse_config(document: Document) -> ParsedPlugin:
    model = validate(document, ConfigModel)
    return ParsedPlugin("config", model.name, document, model)


HANDLER: Final = "event handler"
HANDLER_KIND: Final = Kind(
    HANDLER, frozenset({"event"}), _parse_handler, _make_handler, scripts=("script",)
)
CONFIG_KIND: Final = Kind("config", frozenset({"config"}), _parse_config)
