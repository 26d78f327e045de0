"""Routes and the requests that they serve: plain data that the steps share."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from aiohttp import web
from multidict import CIMultiDict

from gateway.auth.request import IncomingRequest, RequestHead
from gateway.endpoints.routing.rules import (
    ANY_CLIENT,
    ANY_REQUEST,
    DEFAULT_PASSIVE,
    NO_RULES,
    ActiveHealth,
    ClientNetworks,
    HeaderRules,
    PassiveHealth,
    Redirect,
    RequestConditions,
    UpstreamTls,
)
from gateway.http.cors import CorsPolicy
from gateway.http.responses import GatewayResponse
from gateway.limits import Lease, TransferMeter, client_key
from gateway.telemetry.request_facts import ENDPOINT_NAMES

RouteAuth = Literal["default", "none", "token", "jwt"]

NOT_PROXIED_METHODS: Final = frozenset({"CONNECT", "TRACE"})
"""Methods that are about a connection, not about a resource."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds to connect, between bytes, for a script, and in all; bytes of a body that is read whole.

    `in_flight` are requests at the same time, `body` the bytes of any body; None: without a bound.
    """

    connect: float = 10.0
    idle: float = 60.0
    script: float = 60.0
    max_body: int = 1 << 20
    total: float | None = None
    in_flight: int | None = None
    body: int | None = None

    @property
    def whole_body(self) -> int:
        """Bytes of a body that is read whole."""
        return self.max_body if self.body is None else min(self.max_body, self.body)


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` requests in `seconds` for each `by`: the client's address or its principal."""

    count: int
    seconds: float
    by: Literal["address", "principal"] = "address"


SchemaPlace = Literal["body", "headers", "query", "path"]
"""What a schema is about."""


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A violation of a JSON Schema: the rule, and where (JSON pointer, RFC 6901), never the value."""

    pointer: str
    rule: str
    message: str
    place: SchemaPlace = "body"


Check = Callable[[Any], list[SchemaFault]]
"""A compiled JSON Schema: returns the rules that a value violates."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route: its JSON Schemas (None: anything) and its normal status codes.

    `usage` is a line, `description` and `tags` are for the document of the routes.

    `check_body`, `check_headers`, `check_query` and `check_path` are the compiled schemas of requests;
    `check_response` is that of the body of a normal response, `check_responses` those by status (`200`,
    `4XX`, `default`). `defaults` are the header values that the schema fills in. Bodies of
    `other_types` are not checked; `body_optional` requests may be without one.
    """

    method: str
    usage: str
    body_schema: Mapping[str, Any] | None = None
    headers_schema: Mapping[str, Any] | None = None
    query_schema: Mapping[str, Any] | None = None
    path_schema: Mapping[str, Any] | None = None
    response_schema: Mapping[str, Any] | None = None
    response_schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str = ""
    normal_codes: frozenset[int] = frozenset()
    check_body: Check | None = None
    check_headers: Check | None = None
    check_query: Check | None = None
    check_path: Check | None = None
    check_response: Check | None = None
    check_responses: Mapping[str, Check] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    other_types: tuple[str, ...] = ()
    body_optional: bool = False

    @property
    def checks_requests(self) -> bool:
        """Whether any schema is about requests."""
        checks = (self.check_body, self.check_headers, self.check_query, self.check_path)
        return any(checks) or bool(self.other_types)

    @property
    def checks_responses(self) -> bool:
        """Whether any schema is about responses."""
        return self.check_response is not None or bool(self.check_responses)

    def response_check(self, status: int) -> Check | None:
        """Return the check of a response's body: that of its status, or that of normal responses."""
        for name in (str(status), f"{status // 100}XX", "default"):
            if name in self.check_responses:
                return self.check_responses[name]
        normal = self.normal_codes or range(200, 300)
        return self.check_response if status in normal else None


@dataclass(frozen=True, slots=True)
class RouteScript:
    """A compiled script body as a function.

    `reads_body` and `reads_response` tell whether it may use the body of the request or the response.
    """

    function: Callable[..., Awaitable[Any]]
    reads_body: bool
    reads_response: bool
    place: str


@dataclass(frozen=True, slots=True)
class Route:
    """One routing plugin, checked. `path`, `target`: templates; `upstreams`: none for scripts alone.

    A caller needs all `scopes`, and one of the `groups` if there are any. With `raw_path` the rest of
    a path goes upstream in spellings that servers read in different ways. `weights` are those of the
    `upstreams`, in their order.
    """

    name: str
    place: str
    path: str
    target: str
    upstreams: tuple[str, ...]
    scheme: Literal["http", "https"]
    auth: RouteAuth
    operations: Mapping[str, Operation]
    request_script: RouteScript | None = None
    response_script: RouteScript | None = None
    cors: CorsPolicy | None = None
    rate: Rate | None = None
    limits: Limits = Limits()
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    raw_path: bool = False
    weights: tuple[int, ...] = ()
    passive: PassiveHealth = DEFAULT_PASSIVE
    health: ActiveHealth | None = None
    upstream_tls: UpstreamTls | None = None
    conditions: RequestConditions = ANY_REQUEST
    clients: ClientNetworks = ANY_CLIENT
    request_headers: HeaderRules = NO_RULES
    response_headers: HeaderRules = NO_RULES
    redirect: Redirect | None = None
    websocket: bool = False
    label: str = field(init=False)
    """The name in metrics and access lines, which no endpoint has."""

    def __post_init__(self) -> None:
        label = f"route {self.name}" if self.name in ENDPOINT_NAMES else self.name
        object.__setattr__(self, "label", label)

    @property
    def is_plain(self) -> bool:
        """Whether requests are checked and forwarded, and no more: no script, no CORS, no TLS."""
        scripts = self.request_script is not None or self.response_script is not None
        scripts = scripts or bool(self.request_headers) or bool(self.response_headers)
        reads = any(operation.checks_responses for operation in self.operations.values())
        forwards = bool(self.upstreams) and self.scheme == "http" and not (scripts or reads)
        return (
            forwards
            and self.cors is None
            and not self.websocket
            and "#" not in self.target
            and self.target[-1:] != "?"
        )

    def operation(self, method: str) -> Operation | None:
        """Return the operation of a method. HEAD is GET, whose body an upstream cuts off."""
        if method == "HEAD" and method not in self.operations:
            method = "GET"
        return self.operations.get(method)

    def allows(self, method: str) -> bool:
        """Tell whether the route serves this method; without operations it serves all."""
        if not self.operations:
            return method not in NOT_PROXIED_METHODS
        return method in self.methods

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the operations, in order, and HEAD if an upstream serves GET."""
        methods = set(self.operations)
        if "GET" in methods and (self.upstreams or self.redirect):
            methods.add("HEAD")
        return tuple(sorted(methods))


@dataclass(slots=True)
class RequestContext:
    """One request as it passes through the steps.

    `headers` is what goes upstream and what scripts see (defaults filled in); `raw_resources`
    are still encoded. `body` is None while it has not been read: then it streams.
    """

    incoming: RequestHead
    route: Route
    operation: Operation | None
    resources: Mapping[str, str]
    raw_resources: Mapping[str, str]
    params: Mapping[str, list[str]]
    headers: CIMultiDict[str]
    remote: str | None
    principal: Mapping[str, Any] | None = None
    body: bytes | None = None
    awaits_continue: bool = False
    """The client waits for `100 Continue`, which was not sent yet."""
    path: str = "/"
    """The decoded path, for scripts."""
    buffered: Lease | None = None
    """The bytes of the body in memory, as `BodyBuffer` counts them."""
    meter: TransferMeter | None = None
    """Judges how fast the client sends the body."""
    response_meter: TransferMeter | None = None
    """Judges how fast the client reads a response that streams."""
    unpacked: bytes | None = None
    """What scripts see of a body that the client has packed (`Content-Encoding`)."""
    buffered_response: Lease | None = None
    """The bytes of a response that was read whole, while a script and the client need them."""
    method: str | None = None
    """The method for the upstream, if a step has set one."""
    upstream_path: str | None = None
    """The encoded path for the upstream, if a step has set one in place of the target's."""
    raw_query: str | None = None
    """The encoded query for the upstream, if a step has set one."""
    response_faults: Sequence[SchemaFault] = ()
    """The rules that the response violates."""
    deadline: float | None = None
    """The time of the loop by which the response of the upstreams must have ended (`limits.total`)."""

    @property
    def request(self) -> web.BaseRequest:
        """The request of the client, on the ordinary path."""
        return cast(IncomingRequest, self.incoming).request

    @property
    def upstream_method(self) -> str:
        """The method that the upstream gets."""
        return self.method or self.incoming.method

    @property
    def client(self) -> str:
        """The client that this request counts for."""
        return client_key(self.principal, self.remote)


Next = Callable[[RequestContext], Awaitable[GatewayResponse]]
Step = Callable[[RequestContext, Next], Awaitable[GatewayResponse]]


def chain(steps: Sequence[Step], last: Next) -> Next:
    """Return `steps` put in front of `last`, the first one outermost."""
    return functools.reduce(_bind, reversed(steps), last)


def _bind(call_next: Next, step: Step) -> Next:
    return lambda context: step(context, call_next)
