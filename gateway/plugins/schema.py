"""Plugins room: the JSON Schema of plugin YAML, for editors.

One rule: `plugin.schema.json` is made from the models; a test fails when it is stale. Run this module
to write it anew. May import this room.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.plugins.models import APPLIES, EVENTS, ConfigModel, HandlerModel
from gateway.plugins.route_models import RouteModel

FILE: Final = Path(__file__).with_name("plugin.schema.json")
_MODELS: Final[tuple[type[BaseModel], ...]] = (HandlerModel, RouteModel, ConfigModel)


def plugin_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of a document: one plugin or a list of them."""
    pairs, made = models_json_schema([(model, "validation") for model in _MODELS])
    made["$defs"]["HandlerModel"]["allOf"] = [_only_for(event) for event in EVENTS]
    plugin = {"anyOf": [pairs[(model, "validation")] for model in _MODELS]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Upload Gateway plugin",
        "anyOf": [{"$ref": "#/$defs/Plugin"}, {"type": "array", "items": {"$ref": "#/$defs/Plugin"}}],
        "$defs": {**made["$defs"], "Plugin": plugin},
    }


def schema_text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(plugin_schema(), indent=2, ensure_ascii=False) + "\n"


def _only_for(event: str) -> dict[str, Any]:
    foreign = {key: False for key, home in APPLIES.items() if home != event}
    when = {"properties": {"event": {"const": event}}, "required": ["event"]}
    return {"if": when, "then": {"properties": foreign}}


if __name__ == "__main__":
    FILE.write_text(schema_text(), encoding="utf-8")
