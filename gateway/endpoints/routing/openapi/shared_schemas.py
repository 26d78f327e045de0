"""JSON Schemas of plugins in the document: what their references lead to becomes a component.

A reference inside a schema leads into that schema, one inside the document into the document. So they
are rewritten; definitions that are the same, with all that they refer to, become one component.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

Schema = Any
"""A mapping, or a boolean."""

_DEFINITIONS: Final = ("$defs", "definitions")
_LOCAL: Final = re.compile(r"#/(\$defs|definitions)/([^/]+)(.*)", re.DOTALL)
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
"""Keywords whose value has a schema for each name."""

_VALUES: Final = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords whose value is data: what looks like a reference there is none."""

_PREFIX: Final = "#/components/schemas/"


class SharedSchemas:
    """The components of a document that schemas of routes refer to; `reserved` names are taken."""

    def __init__(self, reserved: Collection[str] = ()) -> None:
        self.components: dict[str, Schema] = {}
        self._reserved = frozenset(reserved)
        self._names: dict[object, str] = {}

    def whole(self, schema: Mapping[str, Any], name: str) -> Schema:
        """Return a schema as it stands in the document. `name` says what it is of."""
        if not any(_references(schema)):
            return schema
        return _Rewriter(self, schema, name).rewrite(_without_definitions(schema))

    def property_of(self, schema: Mapping[str, Any], name: str, owner: str) -> Schema:
        """Return the schema of one property of a schema; `owner` says what that is of."""
        properties = schema.get("properties")
        value = properties.get(name, {}) if isinstance(properties, Mapping) else {}
        return _Rewriter(self, schema, owner).rewrite(value) if any(_references(value)) else value

    def name_of(self, identity: object, wanted: str) -> tuple[str, bool]:
        """Return the name of a component, and whether it is new."""
        if identity in self._names:
            return self._names[identity], False
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-") or "schema"
        name, number = plain, 1
        while name in self.components or name in self._reserved:
            number += 1
            name = f"{plain}-{number}"
        self._names[identity] = name
        self.components[name] = {}
        return name, True


class _Rewriter:
    """Rewrites the references of one schema."""

    def __init__(self, shared: SharedSchemas, root: Mapping[str, Any], name: str) -> None:
        self._shared = shared
        self._root = root
        self._name = name
        self._own = str(root.get("$id", ""))

    def rewrite(self, schema: Schema) -> Schema:
        """Return a schema, with what it refers to among the components."""
        if isinstance(schema, list):
            return [self.rewrite(part) for part in schema]
        if not isinstance(schema, Mapping) or ("$id" in schema and schema["$id"] != self._own):
            return schema
        rewritten: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword == "$ref" and isinstance(value, str):
                rewritten[keyword] = self._target(value)
            elif keyword in _MAPS and isinstance(value, Mapping):
                rewritten[keyword] = {name: self.rewrite(part) for name, part in value.items()}
            elif keyword != "$id":
                rewritten[keyword] = value if keyword in _VALUES else self.rewrite(value)
        return rewritten

    def _target(self, reference: str) -> str:
        if self._own and reference.startswith(f"{self._own}#"):
            reference = reference.removeprefix(self._own)
        if (match := _LOCAL.fullmatch(reference)) and (part := self._definition(match)) is not None:
            identity = (match[2], *sorted(self._closure(match)))
            name, is_new = self._shared.name_of(identity, match[2])
            if is_new:
                self._shared.components[name] = self.rewrite(part)
            return f"{_PREFIX}{name}{match[3]}"
        if reference == "#" or reference.startswith("#/"):
            name, is_new = self._shared.name_of(id(self._root), self._name)
            if is_new:
                self._shared.components[name] = self.rewrite(self._root)
            return f"{_PREFIX}{name}{reference[1:]}"
        return reference

    def _definition(self, match: re.Match[str]) -> Schema | None:
        definitions = self._root.get(match[1])
        key = match[2].replace("~1", "/").replace("~0", "~")
        return definitions.get(key) if isinstance(definitions, Mapping) else None

    def _closure(self, match: re.Match[str]) -> set[str]:
        """Return the texts of a definition and of all that it refers to."""
        texts: dict[str, str] = {}
        waiting = [match]
        while waiting:
            current = waiting.pop()
            place = f"{current[1]}/{current[2]}"
            if place in texts:
                continue
            part = self._definition(current)
            texts[place] = f"{place} {json.dumps(part, sort_keys=True, default=str)}"
            for reference in _references(part):
                if (further := _LOCAL.fullmatch(reference.removeprefix(self._own))) is not None:
                    waiting.append(further)
                else:
                    texts["root"] = f"root {id(self._root)}"
        return set(texts.values())


def _without_definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {keyword: value for keyword, value in schema.items() if keyword not in _DEFINITIONS}


def _references(schema: Schema) -> Iterator[str]:
    """Yield the references of a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword == "$ref" and isinstance(value, str):
            yield value
        elif keyword in _MAPS and isinstance(value, Mapping):
            for part in value.values():
                yield from _references(part)
        elif keyword not in _VALUES:
            yield from _references(value)
