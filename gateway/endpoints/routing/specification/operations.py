"""The operations of an OpenAPI document, each as the keys of a route's YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.domain.path_template import RouteTemplate
from gateway.endpoints.routing.specification.bodies import BodyReader, Responses
from gateway.endpoints.routing.specification.notes import Unchecked
from gateway.endpoints.routing.specification.parameters import ParameterReader
from gateway.endpoints.routing.specification.paths import PathTemplate, path_template, server_path
from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.schemas import SchemaTranslator, TranslatedSchema
from gateway.endpoints.routing.specification.source import Source
from gateway.errors import ConfigError

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
"""The methods that are served: TRACE is not forwarded."""

MAX_TEXT: Final = 1000
"""Characters of a description that are kept."""


@dataclass(frozen=True, slots=True)
class SpecifiedOperation:
    """An operation: its method, its path in the document, and the keys that its route has.

    `path` and `target` are templates, `spec` is the item of the key `spec`. `places` are the places in
    the document of what is in `spec`.
    """

    method: str
    name: str
    path: str
    target: str
    spec: dict[str, Any]
    place: Place
    places: Mapping[Place, Place] = field(repr=False)

    def origin(self, where: Place) -> Place:
        """Return the place in the document of a key in `spec`."""
        for length in range(len(where), 0, -1):
            if where[:length] in self.places:
                return (*self.places[where[:length]], *where[length:])
        return self.place


class Expansion:
    """All operations of a document, but those of `skip` (`/path`, or `GET /path`).

    `prefix` and `target` go before the paths here and at the upstreams; None: the path of the server.
    Faults are noted in the source. `unchecked` is what passes without a check.
    """

    def __init__(
        self,
        source: Source,
        prefix: str | None = None,
        target: str | None = None,
        skip: Sequence[str] = (),
    ) -> None:
        self._source = source
        self._prefix = prefix
        self._target = target
        self._skip = frozenset(skip)
        self.unused_skips = set(skip)
        self.unchecked = Unchecked(source)
        translator = SchemaTranslator(source)
        self._parameters = ParameterReader(source, translator, self.unchecked)
        self._bodies = BodyReader(source, translator, self.unchecked)
        self._schemes = frozenset(self._security_schemes())
        self.has_security = False
        self.operations = tuple(self._operations())

    def by_route(self) -> Iterator[tuple[SpecifiedOperation, ...]]:
        """Yield the operations of each route: HEAD goes with GET, which serves it elsewhere."""
        heads = {each.path: each for each in self.operations if each.method == "HEAD"}
        gets = {each.path for each in self.operations if each.method == "GET"}
        for operation in self.operations:
            if operation.method == "GET" and operation.path in heads:
                yield operation, heads[operation.path]
            elif operation.method != "HEAD" or operation.path not in gets:
                yield (operation,)

    def _security_schemes(self) -> Iterator[str]:
        components = self._source.data.get("components")
        schemes = components.get("securitySchemes") if isinstance(components, dict) else None
        yield from schemes if isinstance(schemes, dict) else ()

    def _operations(self) -> Iterator[SpecifiedOperation]:
        """Yield the operations; faults are noted, and what has one is left out."""
        source, served = self._source, dict[tuple[object, str], Place]()
        try:
            paths = source.mapping(source.data.get("paths"), ("paths",))
            self._check_security(source.data.get("security"), ("security",))
        except ConfigError as error:
            source.add(error)
            return
        for path, value in paths.items():
            if path[:2] == "x-" or self._skips(path):
                continue
            place: Place = ("paths", path)
            try:
                template = path_template(source, path, place)
                item = source.follow(value, place)
                members = source.mapping(item.value, item.place)
            except ConfigError as error:
                source.add(error)
                continue
            if "trace" in members:
                self.unchecked.note("TRACE is not served", (*item.place, "trace"))
            for method in METHODS:
                if method in members and not self._skips(f"{method.upper()} {path}"):
                    operation = self._try(path, template, members, method, item.place)
                    if operation is not None and self._is_first(operation, template, served):
                        yield operation

    def _skips(self, name: str) -> bool:
        self.unused_skips.discard(name)
        return name in self._skip

    def _is_first(
        self,
        operation: SpecifiedOperation,
        template: PathTemplate,
        served: dict[tuple[object, str], Place],
    ) -> bool:
        """Note a fault where an operation before has the same path and method."""
        key = (RouteTemplate.parse(operation.path).shape, operation.method)
        first = served.setdefault(key, operation.place)
        if first != operation.place:
            line = self._source.line(first)
            message = (
                f"this path, with other names of its variables, has {operation.method} in line {line}"
            )
            self._source.note(f"{message}: remove one", operation.place)
        return first == operation.place

    def _try(
        self, path: str, template: PathTemplate, members: dict[str, Any], method: str, place: Place
    ) -> SpecifiedOperation | None:
        try:
            return self._operation(path, template, members, method, place)
        except ConfigError as error:
            self._source.add(error)
        return None

    def _operation(
        self, path: str, template: PathTemplate, members: dict[str, Any], method: str, item: Place
    ) -> SpecifiedOperation:
        source, place = self._source, (*item, method)
        described = source.mapping(members[method], place)
        self._check_security(described.get("security"), (*place, "security"))
        lists = [
            (members.get("parameters"), (*item, "parameters")),
            (described.get("parameters"), (*place, "parameters")),
        ]
        parameters = self._parameters.read(lists, template.variables)
        schemas = _SchemaKeys()
        for where, schema in parameters.items():
            if schema.schema is not None:
                schemas.request[where] = schema.schema
                for inner, origin in schema.places.items():
                    schemas.places["schema", "request", where, *inner] = origin
        body = self._bodies.request(described.get("requestBody"), (*place, "requestBody"))
        if body.schema is not None:
            schemas.add(schemas.request, ("schema", "request"), "body", body.schema)
        if body.other_types:
            schemas.request["other_types"] = list(body.other_types)
        if body.optional and (body.schema is not None or body.other_types):
            schemas.request["body_optional"] = True
        schemas.add_responses(self._bodies.responses(described.get("responses"), (*place, "responses")))
        base = self._server_path(described, members, place, item)
        served = base if self._prefix is None else self._prefix.rstrip("/")
        target = base if self._target is None else self._target.rstrip("/")
        return SpecifiedOperation(
            method=method.upper(),
            name=f"{method.upper()} {path}",
            path=served + template.text,
            target=target + template.text,
            spec={"method": method.upper(), **_texts(described), **schemas.keys()},
            place=place,
            places=schemas.places,
        )

    def _server_path(
        self, described: Mapping[str, Any], members: Mapping[str, Any], place: Place, item: Place
    ) -> str:
        source = self._source
        for level, where in ((described, place), (members, item)):
            if "servers" in level:
                reason = "servers of a path or an operation: only the path of their URL counts"
                self.unchecked.note(reason, (*where, "servers"))
                return server_path(source, level["servers"], (*where, "servers"))
        return server_path(source, source.data.get("servers"), ("servers",))

    def _check_security(self, value: Any, place: Place) -> None:
        for at, requirement in enumerate(self._source.items(value, place)):
            for name in self._source.mapping(requirement, (*place, at)):
                self.has_security = True
                if name not in self._schemes:
                    message = f"`components.securitySchemes` has no {name}"
                    raise self._source.error(message, (*place, at, name))


@dataclass(slots=True)
class _SchemaKeys:
    """The value of the key `schema` of an item of `spec`."""

    request: dict[str, Any] = field(default_factory=dict)
    response: dict[str, Any] = field(default_factory=dict)
    places: dict[Place, Place] = field(default_factory=dict)

    def add(self, keys: dict[str, Any], above: Place, key: str, schema: TranslatedSchema) -> None:
        """Add a schema to `keys`, with its places."""
        keys[key] = schema.schema
        self.places[*above, key] = schema.place
        for name, place in schema.places.items():
            self.places[*above, key, "$defs", name] = place

    def add_responses(self, responses: Responses) -> None:
        """Add what is said of responses."""
        if responses.codes:
            self.response["normal"] = {"codes": list(responses.codes)}
        bodies: dict[str, Any] = {}
        for status, schema in responses.schemas.items():
            self.add(bodies, ("schema", "response", "bodies"), status, schema)
        if bodies:
            self.response["bodies"] = bodies

    def keys(self) -> dict[str, Any]:
        """Return the key, if there is anything."""
        both = {"request": self.request, "response": self.response}
        schema = {name: keys for name, keys in both.items() if keys}
        return {"schema": schema} if schema else {}


def _texts(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return the texts for people of an operation."""
    summary, description = described.get("summary"), described.get("description")
    usage = summary if isinstance(summary, str) else described.get("operationId")
    tags = described.get("tags")
    texts = {
        "usage": " ".join(usage.split()) if isinstance(usage, str) else "",
        "description": description[:MAX_TEXT] if isinstance(description, str) else "",
        "tags": [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else [],
    }
    return {name: text for name, text in texts.items() if text}
