"""Which keys a routing plugin's YAML may have, and of which type.

`endpoints.routing.plugin` gives them their meaning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.domain.grant import Method
from gateway.plugins.model_types import Bytes, Seconds, Strict
from gateway.plugins.testing_models import AnswerModel, ExpectedStores, StubsModel

Scheme = Literal["http", "https", "http:", "https:"]
Code = Annotated[int, Field(ge=100, le=599)]
JsonSchema = dict[str, Any]


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
        default_factory=list, description="One of them must be in the token (JSON Web Tokens only)"
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


class RequestSchemaModel(Strict):
    """Schemas of the request."""

    body: JsonSchema | None = Field(None, description="JSON Schema of the body")
    headers: JsonSchema | None = Field(
        None, description="JSON Schema of the headers; a property's `default` is filled in"
    )


class NormalModel(Strict):
    """Statuses that are normal."""

    codes: list[Code] = Field(default_factory=list, description="Other statuses are logged and counted")


class ResponseSchemaModel(Strict):
    """Responses of one method."""

    normal: NormalModel = Field(default_factory=NormalModel)


class SchemaModel(Strict):
    """Schemas of one method."""

    request: RequestSchemaModel = Field(default_factory=RequestSchemaModel)
    response: ResponseSchemaModel = Field(default_factory=ResponseSchemaModel)


class SpecModel(Strict):
    """One method of a route."""

    command: Literal["callout"] = "callout"
    method: Method
    usage: str = Field("", description="What it does, in a line")
    schemas: SchemaModel = Field(default_factory=SchemaModel, alias="schema")


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


class LimitsModel(Strict):
    """Bounds of one request."""

    connect: Seconds = Field(10.0, description="Seconds to reach an upstream")
    idle: Seconds = Field(60.0, description="Seconds without a byte, from either side")
    script: Seconds = Field(60.0, description="Seconds that each script may run")
    max_body: Bytes = Field(
        1048576, ge=0, le=1 << 30, description="Bytes of a body that is read for a schema or a script"
    )


class RouteRequestModel(Strict):
    """The request of a test."""

    method: Method
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
    headers: dict[str, str] | None = Field(None, description="Headers that go upstream, some of them")
    response_headers: dict[str, str] | None = Field(
        None, description="Headers of the response, some of them"
    )
    sent: SentModel | None = Field(None, description="The rest of the request that goes upstream")


class RouteTestModel(StubsModel):
    """A test of a route that `gateway check` runs."""

    request: RouteRequestModel
    upstream: AnswerModel = Field(default_factory=AnswerModel, description="The stubbed response")
    expect: RouteExpectModel


class RouteModel(Strict):
    """A path that is served: by upstreams, by scripts, or by both."""

    name: str | None = Field(None, min_length=1, description="Methods and path if not given")
    upstreams: list[str] = Field(description="host or host:port, in turn; []: only scripts answer")
    proxy: ProxyModel
    target: TargetModel | None = Field(None, description="The served path if not given")
    request_script: str | None = Field(
        None, description="Body of a script that runs first: what it returns is the response"
    )
    response_script: str | None = Field(
        None, description="Body of a script that runs on the response of the upstream"
    )
    spec: list[SpecModel] = Field(default_factory=list, description="Methods; all if not given")
    cors: CorsModel | None = None
    rate_limit: RateModel | None = None
    limits: LimitsModel = Field(default_factory=LimitsModel)
    tests: list[RouteTestModel] = Field(default_factory=list)
