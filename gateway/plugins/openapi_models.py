"""Which keys a plugin that makes routes of an OpenAPI document may have, and of which type."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.plugins.model_types import Strict
from gateway.plugins.route_models import AuthorizationModel, RouteRules, Scheme
from gateway.plugins.upstream_models import Upstream

SkippedOperation = Annotated[str, Field(pattern="^([A-Z]+ )?/", max_length=2000)]
PathPrefix = Annotated[str, Field(pattern="^/", max_length=1000)]


class OpenApiModel(Strict):
    """The document, and where its operations are served."""

    file: str = Field(min_length=1, description="OpenAPI 3.0 or 3.1, JSON or YAML, beside this file")
    upstreams: list[Upstream] = Field(description="host or host:port, in turn; []: only scripts answer")
    path: PathPrefix | None = Field(
        None, description="Prefix of the served paths; that of the first server in the document"
    )
    skip: list[SkippedOperation] = Field(
        default_factory=list, description="Operations that are not served: /path, or GET /path"
    )


class SpecifiedProxyModel(Strict):
    """Who may call the routes."""

    authorization: AuthorizationModel = Field(default_factory=AuthorizationModel)


class SpecifiedTargetModel(Strict):
    """The path and scheme at the upstreams."""

    path: PathPrefix | None = Field(
        None, description="Prefix of the paths there; that of the first server in the document"
    )
    scheme: Scheme = Field("http:", description="How the upstreams are called")


class OpenApiPath(Strict):
    """What is one document's own."""

    name: str | None = Field(None, min_length=1, description="The file's name without its suffix")
    openapi: OpenApiModel
    proxy: SpecifiedProxyModel = Field(default_factory=SpecifiedProxyModel)
    target: SpecifiedTargetModel = Field(default_factory=SpecifiedTargetModel)


class OpenApiPluginModel(RouteRules, OpenApiPath):
    """Routes for the operations of an OpenAPI document, with these keys for all of them."""
