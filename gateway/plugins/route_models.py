"""Which keys a routing plugin's YAML may have, and of which type.

`endpoints.routing.loading.plugin` gives them their meaning.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.domain.addresses import ip_address
from gateway.domain.grant import Method
from gateway.plugins.model_types import Strict
from gateway.plugins.spec_models import SpecModel
from gateway.plugins.testing_models import AnswerModel, ExpectedStores, StubsModel
from gateway.plugins.upstream_models import (
    HealthModel,
    LimitsModel,
    PassiveModel,
    Upstream,
    UpstreamTlsModel,
)

Scheme = Literal["http", "https", "http:", "https:"]


def _header_name(name: str) -> str:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValueError("must be the name of a header")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]


def _scope_name(name: str) -> str:
    """A scope-token of RFC 6749 section 3.3."""
    if not name or not all("!" <= letter <= "~" and letter not in '"\\' for letter in name):
        raise ValueError("must be a scope: visible ASCII characters, no blanks and quotes")
    return name


ScopeName = Annotated[str, AfterValidator(_scope_name)]


class AuthorizationModel(Strict):
    """Who may call a route."""

    auth: Literal["default", "none", "token", "jwt"] = Field(
        "default",
        description="default: what --auth says; token, jwt: that, whatever --auth says; none: all may",
    )
    scopes: list[ScopeName] = Field(
        default_factory=list, description="All of them must be in the token (JSON Web Tokens only)"
    )
    groups: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="The caller must be in one of them, as the token or --identity-headers say",
    )

    @model_validator(mode="after")
    def _have_rights(self) -> Self:
        if (self.scopes or self.groups) and self.auth in {"none", "token"}:
            raise ValueError("only JSON Web Tokens have scopes and groups: write `auth: jwt`")
        return self


class ProxyModel(Strict):
    """The served path."""

    path: str = Field(description="Template: literal segments, {name}, and a last {name:path}")
    scheme: Scheme = Field("http:", description="Without effect: the settings of the gateway decide")
    authorization: AuthorizationModel = Field(default_factory=AuthorizationModel)


class TargetModel(Strict):
    """The path and scheme at the upstreams."""

    path: str | None = Field(
        None, description="Template with the variables of the served path, which is the default"
    )
    scheme: Scheme = Field("http:", description="How the upstreams are called")
    raw_path: bool = Field(
        False, description="The rest may contain %2F, empty segments and semicolons (object names)"
    )


class CorsModel(Strict):
    """Which pages of other origins may call from a browser."""

    origins: list[str] = Field(min_length=1, description='Origins such as https://a.example, or "*"')
    methods: list[Method] = Field(default_factory=list, description="Those of `spec` if not given")
    headers: list[HeaderName] = Field(
        default_factory=list, description="Request headers; all requested ones if not given"
    )
    expose: list[HeaderName] = Field(default_factory=list, description="Response headers pages may read")
    credentials: bool = Field(False, description="Cookies and authorization may be sent")
    max_age: int = Field(600, ge=0, le=86400, description="Seconds that a preflight is remembered")


class RateModel(Strict):
    """Requests that a client may send."""

    count: int = Field(ge=1, description="Requests")
    seconds: int = Field(1, ge=1, le=86400, description="in so many seconds")
    by: Literal["address", "principal"] = Field("address", description="What counts as one client")


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8, or an address: {error}") from None
    return text


def _address(text: str) -> str:
    if ip_address(text) is None:
        raise ValueError("must be an IP address")
    return text


Network = Annotated[str, AfterValidator(_network)]

Text = Annotated[str, Field(max_length=1000)]


def _wanted(value: object) -> object:
    texts = value if isinstance(value, list) and value else [value]
    if not isinstance(value, bool) and not all(isinstance(text, str) for text in texts):
        raise ValueError('must be a text ("2"), a list of texts, true (any value) or false (absent)')
    return value


_Wanted = bool | Text | Annotated[list[Text], Field(min_length=1, max_length=100)]
Wanted = Annotated[_Wanted, BeforeValidator(_wanted, json_schema_input_type=_Wanted)]
"""The value, or one of several; true: any value, false: not there."""


class WhenModel(Strict):
    """What a request must have, beside the path."""

    headers: dict[HeaderName, Wanted] = Field(
        default_factory=dict, description="Value by name; a list: one of them; true: any; false: absent"
    )
    query: dict[Text, Wanted] = Field(default_factory=dict, description="Likewise, of the query")


class HeaderRulesModel(Strict):
    """Header fields that are changed while bodies stream."""

    set: dict[HeaderName, str] = Field(default_factory=dict, description="Value by name")
    remove: list[HeaderName] = Field(default_factory=list, description="Names")


def _as_redirect(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


class RedirectModel(Strict):
    """Where clients are sent."""

    url: str = Field(
        min_length=1, description="Template with the variables of the path; the query is kept"
    )
    status: Literal[301, 302, 303, 307, 308] = Field(308, description="Status of the response")


Redirect = Annotated[
    RedirectModel, BeforeValidator(_as_redirect, json_schema_input_type=RedirectModel | str)
]


class RouteRequestModel(Strict):
    """The request of a test."""

    method: Method
    host: str | None = Field(None, description="Value of `Host`; one of `hosts` if not given")
    path: str | None = Field(None, description="Made from the template and `resources` if not given")
    headers: dict[str, str] = Field(default_factory=dict)
    params: dict[str, list[str]] = Field(default_factory=dict)
    resources: dict[str, str] = Field(default_factory=dict)
    body: Any = Field(None, description="Text, or a dict or list that is sent as JSON")
    principal: dict[str, Any] | None = Field(
        None,
        description="Who calls, null for an unknown caller; not given: authorization is skipped,"
        " unless 401 is expected",
    )
    remote: Annotated[str, AfterValidator(_address)] = Field(
        "192.0.2.1", description="Address of the client"
    )
    repeat: int = Field(1, ge=1, le=10_000, description="How often it is sent; the last response counts")


class SentModel(Strict):
    """The request that the upstream gets; keys that are not given are not compared."""

    method: str | None = None
    target: str | None = Field(None, description="Encoded path and query")
    body: Any = Field(None, description="Text, or the value of its JSON")


class RouteExpectModel(ExpectedStores):
    """The expected result of a route; keys that are not given are not compared."""

    status: int | None = Field(None, ge=100, le=599)
    output: Any = Field(None, description="The body of the response: text, or the value of its JSON")
    headers: dict[str, str | None] | None = Field(
        None, description="Headers that go upstream, some of them; null: none of this name"
    )
    response_headers: dict[str, str | None] | None = Field(
        None, description="Headers of the response, likewise"
    )
    sent: SentModel | None = Field(None, description="The rest of the request that goes upstream")


class RouteTestModel(StubsModel):
    """A test of a route that `gateway check` runs."""

    request: RouteRequestModel
    upstream: AnswerModel = Field(default_factory=AnswerModel, description="The stubbed response")
    expect: RouteExpectModel


class RoutePath(Strict):
    """What is one route's own."""

    name: str | None = Field(None, min_length=1, description="Methods and path if not given")
    upstreams: list[Upstream] = Field(
        default_factory=list, description="host or host:port, in turn; []: only scripts answer"
    )
    proxy: ProxyModel
    target: TargetModel | None = Field(None, description="The served path if not given")
    redirect: Redirect | None = Field(None, description="A URL, or `url` and `status`: no upstreams")
    spec: list[SpecModel] = Field(default_factory=list, description="Methods; all if not given")


class RouteRules(Strict):
    """What routes may have in common."""

    hosts: list[str] = Field(default_factory=list, description="Names in `Host`, or *.example.com")
    when: WhenModel = Field(default_factory=WhenModel)
    allow: list[Network] = Field(
        default_factory=list, description="Networks of clients; all if not given"
    )
    deny: list[Network] = Field(default_factory=list, description="Networks of clients that are refused")
    websocket: bool = Field(False, description="WebSocket connections are forwarded, too")
    health: HealthModel | None = None
    passive: PassiveModel = Field(default_factory=PassiveModel)
    upstream_tls: UpstreamTlsModel | None = None
    request_headers: HeaderRulesModel = Field(default_factory=HeaderRulesModel)
    response_headers: HeaderRulesModel = Field(default_factory=HeaderRulesModel)
    request_script: str | None = Field(
        None, description="Body of a script that runs first: what it returns is the response"
    )
    response_script: str | None = Field(
        None, description="Body of a script that runs on the response of the upstream"
    )
    cors: CorsModel | None = None
    rate_limit: RateModel | None = None
    limits: LimitsModel = Field(default_factory=LimitsModel)
    tests: list[RouteTestModel] = Field(default_factory=list)


class RouteModel(RouteRules, RoutePath):
    """A path that is served: by upstreams, by scripts, or by both."""
