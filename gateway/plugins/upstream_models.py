"""The keys of a route's YAML that are about its upstreams."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.plugins.model_types import Bytes, Seconds, Strict

Code = Annotated[int, Field(ge=100, le=599)]


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _as_upstream(value: object) -> object:
    if isinstance(value, str):
        return {"host": value}
    if not isinstance(value, dict):
        raise ValueError("should be host or host:port, or a mapping with `host` and `weight`")
    return value


class UpstreamModel(Strict):
    """One upstream."""

    host: str = Field(description="host or host:port")
    weight: int = Field(1, ge=1, le=1000, description="Its share of the requests, beside the others'")


Upstream = Annotated[
    UpstreamModel, BeforeValidator(_as_upstream, json_schema_input_type=UpstreamModel | str)
]
"""An upstream, or its host alone."""

Codes = Annotated[
    list[Code],
    BeforeValidator(_listed, json_schema_input_type=list[Code] | Code),
    Field(min_length=1),
]
"""A status, or several."""


class HealthModel(Strict):
    """A request that each upstream gets all the time, to know whether it works."""

    path: str = Field(pattern="^/", description="Path and query of the GET")
    every: Seconds = Field(5.0, description="Seconds between two of them")
    expect: Codes = Field(default_factory=lambda: [200], description="Statuses of health: one or a list")
    timeout: Seconds = Field(2.0, description="Seconds for the status to arrive")


class PassiveModel(Strict):
    """What requests tell of an upstream."""

    failures: int = Field(3, ge=1, le=1000, description="Failures in a row that suspend it")
    statuses: list[Annotated[int, Field(ge=500, le=599)]] = Field(
        default_factory=list, description="Statuses of responses that count as failures"
    )
    aside: Seconds = Field(5.0, description="Seconds that it is suspended; doubled each time")


class UpstreamTlsModel(Strict):
    """TLS to the upstreams (`target.scheme: https`). Paths are relative to the file of the plugin."""

    ca: str | None = Field(
        None, min_length=1, description="Authorities that sign their certificates (PEM)"
    )
    cert: str | None = Field(None, min_length=1, description="Client certificate (PEM)")
    key: str | None = Field(None, min_length=1, description="Its private key (PEM)")


class LimitsModel(Strict):
    """Bounds of one request, and of all at the same time."""

    connect: Seconds = Field(10.0, description="Seconds to reach an upstream")
    idle: Seconds = Field(60.0, description="Seconds without a byte, from either side")
    script: Seconds = Field(60.0, description="Seconds that each script may run")
    max_body: Bytes = Field(
        1048576, ge=0, le=1 << 30, description="Bytes of a body that is read for a schema or a script"
    )
    total: Seconds | None = Field(None, description="Seconds for the upstreams, until the response ends")
    in_flight: int | None = Field(None, ge=1, description="Requests at the same time; above it 503")
    body: Bytes | None = Field(None, ge=0, description="Bytes of any request body; above it 413")
