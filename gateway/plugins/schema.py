"""The JSON Schema of plugin YAML, for editors.

`plugin.schema.json` is generated from the models, and a test fails if it is stale. Run this module to
write it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.domain.model import RECEIVED, SCHEDULE
from gateway.plugins.legacy_keys import ROUTE_KEYS, LegacyKey
from gateway.plugins.models import APPLIES, EVENTS, WITH_HOLD, WITHOUT_HOLD, ConfigModel, HandlerModel
from gateway.plugins.openapi_models import OpenApiPluginModel
from gateway.plugins.route_models import RouteModel
from gateway.plugins.webhooks.models import WebhookModel

SCHEMA_FILE: Final = Path(__file__).with_name("plugin.schema.json")
_MODELS: Final[tuple[type[BaseModel], ...]] = (
    HandlerModel,
    WebhookModel,
    RouteModel,
    OpenApiPluginModel,
    ConfigModel,
)


def _when(event: str) -> dict[str, Any]:
    return {"properties": {"event": {"const": event}}, "required": ["event"]}


_ONE_SCHEDULE: Final = {
    "if": _when(SCHEDULE),
    "then": {
        "oneOf": [{"required": ["cron"]}, {"required": ["every"], "properties": {"timezone": False}}]
    },
}

_HOLDS: Final = {"properties": {"hold": {"const": True}}, "required": ["hold"]}
_HOLDS_ON_ERROR: Final = {"properties": {"on_error": {"const": "hold"}}, "required": ["on_error"]}

_HOLD: Final = {
    "if": _when(RECEIVED),
    "then": {
        "if": _HOLDS,
        "then": {"properties": dict.fromkeys(WITHOUT_HOLD, False)},
        "else": {
            "if": {"not": _HOLDS_ON_ERROR},
            "then": {"properties": dict.fromkeys(WITH_HOLD, False)},
        },
    },
    "else": {"not": _HOLDS_ON_ERROR},
}


def plugin_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of a document: one plugin or a list of them."""
    pairs, schemas = models_json_schema([(model, "validation") for model in _MODELS])
    handler = schemas["$defs"]["HandlerModel"]
    handler["allOf"] = [*map(_only_for, EVENTS), _ONE_SCHEDULE, _HOLD]
    for key in ROUTE_KEYS:
        _accept(schemas["$defs"]["AuthorizationModel" if key.parent else "RouteModel"], key)
        if key.new in OpenApiPluginModel.model_fields:
            _accept(schemas["$defs"]["OpenApiPluginModel"], key)
    plugin = {"anyOf": [pairs[(model, "validation")] for model in _MODELS]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Upload Gateway plugin",
        "anyOf": [{"$ref": "#/$defs/Plugin"}, {"type": "array", "items": {"$ref": "#/$defs/Plugin"}}],
        "$defs": {**schemas["$defs"], "Plugin": plugin},
    }


def _accept(model: dict[str, Any], key: LegacyKey) -> None:
    """Let a document use the legacy spelling of a key instead of the documented one."""
    text = f"Legacy spelling of `{key.new}`"
    model["properties"][key.old] = {**key.schema, "description": text, "deprecated": True}
    if key.new in model.get("required", ()):
        model["required"].remove(key.new)
        choice: dict[str, Any] = {"oneOf": [{"required": [key.new]}, {"required": [key.old]}]}
    else:
        choice = {"not": {"required": [key.new, key.old]}}
    model.setdefault("allOf", []).append(choice)


def schema_text() -> str:
    """Return the text of the schema file."""
    return json.dumps(plugin_schema(), indent=2, ensure_ascii=False) + "\n"


def _only_for(event: str) -> dict[str, Any]:
    foreign = {key: False for key, homes in APPLIES.items() if event not in homes}
    return {"if": _when(event), "then": {"properties": foreign}}


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
