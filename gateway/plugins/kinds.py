"""The table of kinds: which keys make a document which kind of plugin.

One rule: a new kind is one more line: a `Kind` with its keys and its parser (which may live in a
higher room: routing's does, and `gateway.server.app` hands it in).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.domain.model import SCHEDULE
from gateway.errors import ConfigError
from gateway.plugins.models import APPLIES, ConfigModel, HandlerModel
from gateway.plugins.scripting import Configs, Services
from gateway.plugins.yaml_documents import Document, PluginFaults


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document that has been checked: its kind, its name, and what its parser made of it."""

    kind: str
    name: str
    document: Document
    value: Any


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin may be made from beside its document; `state` is its own and outlives reloads."""

    services: Services
    configs: Configs
    state: dict[str, Any]


Parser = Callable[[Document], Parsed]
Maker = Callable[[Parsed, PluginContext], Any]
Gatherer = Callable[[Sequence[Any]], Any]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin. A document is of this kind when it has one of `keys`.

    `make` turns what `parse` returned into what is used, once all configs are known; `gather` makes
    one thing of all that were made, and says which of them contradict each other. Both raise
    `ConfigError`. What is made tells of itself in `describe()`. `scripts` are the keys that hold code.
    """

    name: str
    keys: frozenset[str]
    parse: Parser
    make: Maker | None = None
    gather: Gatherer | None = None
    scripts: tuple[str, ...] = ()


def validate(document: Document, model: type[Model]) -> Model:
    """Return the document as `model`. Raises `PluginFaults` with the line of each fault, no values."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise PluginFaults([_fault(document, model, fault) for fault in found]) from None


def parse(document: Document, kinds: Sequence[Kind]) -> Parsed:
    """Find the kind of a document and parse it. Raises `ConfigError`."""
    for kind in kinds:
        if kind.keys & document.data.keys():
            return kind.parse(document)
    signs = "; ".join(f"{kind.name}: {', '.join(sorted(kind.keys))}" for kind in kinds)
    raise document.fault(f"no key tells which kind of plugin this is ({signs})")


def _fault(document: Document, model: type[BaseModel], fault: Mapping[str, Any]) -> ConfigError:
    where = fault["loc"]
    dotted = document.dotted(where)
    if fault["type"] == "extra_forbidden":
        return document.fault(f"unknown key `{dotted}`{_advice(model, where)}", *where)
    if fault["type"] == "missing":
        return document.fault(f"the key `{dotted}` is missing: add it", *where)
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return document.fault(f"`{dotted}` {message}", *where)


def _advice(model: type[BaseModel], where: tuple[Any, ...]) -> str:
    if len(where) > 1:
        return ": remove it"
    near = difflib.get_close_matches(str(where[0]), model.model_fields, 1)
    return f": did you mean `{near[0]}`?" if near else f": the keys are {', '.join(model.model_fields)}"


def _parse_handler(document: Document) -> Parsed:
    model = validate(document, HandlerModel)
    for key, events in APPLIES.items():
        if key in document.data and model.event not in events:
            *rest, last = events
            where = f"{', '.join(rest)} and {last}" if rest else last
            raise document.fault(f"`{key}` applies to {where} only: remove it", key)
    if model.event == SCHEDULE:
        _check_schedule(document, model)
    return Parsed("event handler", model.name, document, model)


def _check_schedule(document: Document, model: HandlerModel) -> None:
    if model.cron is None and model.every is None:
        raise document.fault('a Schedule needs `cron: "5 3 * * *"` or `every: 15m`: add one', "event")
    if model.cron is not None and model.every is not None:
        raise document.fault("`cron` and `every` exclude each other: remove one", "every")
    if model.every is not None and "timezone" in document.data:
        raise document.fault("`timezone` belongs to `cron`, not to `every`: remove it", "timezone")


def _parse_config(document: Document) -> Parsed:
    model = validate(document, ConfigModel)
    return Parsed("config", model.name, document, model)


KINDS: Final = (
    Kind("event handler", frozenset({"event"}), _parse_handler, scripts=("script",)),
    Kind("config", frozenset({"config"}), _parse_config),
)
"""Asked in this order; those of higher rooms come behind."""
