"""The table of kinds: which keys make a document which kind of plugin.

A new kind is one more `Kind`. Routes are a kind of a higher package, which hands it to `Plugins`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.domain.model import SCHEDULE
from gateway.errors import ConfigError
from gateway.plugins.handlers import Handler, make_handler
from gateway.plugins.models import APPLIES, ConfigModel, HandlerModel
from gateway.plugins.scripting.namespace import PluginContext
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
        ...


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


def _config_error(document: Document, model: type[BaseModel], detail: Mapping[str, Any]) -> ConfigError:
    where = detail["loc"]
    dotted = document.dotted(where)
    if detail["type"] == "extra_forbidden":
        return document.error(f"unknown key `{dotted}`{_advice(model, where)}", *where)
    if detail["type"] == "missing":
        return document.error(f"the key `{dotted}` is missing: add it", *where)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return document.error(f"`{dotted}` {message}", *where)


def _advice(model: type[BaseModel], where: tuple[Any, ...]) -> str:
    if len(where) > 1:
        return ": remove it"
    near = difflib.get_close_matches(str(where[0]), model.model_fields, 1)
    return f": did you mean `{near[0]}`?" if near else f": the keys are {', '.join(model.model_fields)}"


def _parse_handler(document: Document) -> ParsedPlugin:
    model = validate(document, HandlerModel)
    for key, events in APPLIES.items():
        if key in document.data and model.event not in events:
            *rest, last = events
            where = f"{', '.join(rest)} and {last}" if rest else last
            raise document.error(f"`{key}` applies to {where} only: remove it", key)
    if model.event == SCHEDULE:
        _check_schedule(document, model)
    return ParsedPlugin(HANDLER, model.name, document, model)


def _check_schedule(document: Document, model: HandlerModel) -> None:
    if model.cron is None and model.every is None:
        raise document.error('a Schedule needs `cron: "5 3 * * *"` or `every: 15m`: add one', "event")
    if model.cron is not None and model.every is not None:
        raise document.error("`cron` and `every` exclude each other: remove one", "every")
    if model.every is not None and "timezone" in document.data:
        raise document.error("`timezone` belongs to `cron`, not to `every`: remove it", "timezone")


def _make_handler(parsed: ParsedPlugin, context: PluginContext) -> Handler:
    return make_handler(parsed.document, parsed.model_as(HandlerModel), context)


def _parse_config(document: Document) -> ParsedPlugin:
    model = validate(document, ConfigModel)
    return ParsedPlugin("config", model.name, document, model)


HANDLER: Final = "event handler"
KINDS: Final = (
    Kind(HANDLER, frozenset({"event"}), _parse_handler, _make_handler, scripts=("script",)),
    Kind("config", frozenset({"config"}), _parse_config),
)
"""Tried in this order; kinds of higher packages come after them."""
