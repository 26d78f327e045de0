"""The table of the gateway's own endpoints, for the dispatcher, OpenAPI, `gateway sign` and the docs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, NamedTuple


class Access(Enum):
    """Who may call an endpoint."""

    PUBLIC = "everyone"
    OPERATOR = "the default authorization; with a JSON Web Token also a group of --jwt-operators"
    SIGNED_OR_PEER = (
        "a signed URL, or the internal credential of a gateway of the installation; GET also whom"
        " --downloads serves"
    )
    OWNER = "the user of the gateway on its own machine, through a Unix socket"
    CALLER = "a caller of any operation: each sees what it may call"
    UPLOADER = "as OPERATOR; all others whom the default authorization accepts, for their own uploads"
    LINK = "a share link, or a URL that was signed for one"
    DEFAULT = "as OPERATOR, or what the endpoint itself accepts instead"


class ApiRoute(NamedTuple):
    """One row. `{name}` in the pattern is one decoded segment, `{filepath}` one or more.

    GET stands for HEAD too. `endpoint` names the handler.
    """

    method: str
    pattern: str
    access: Access
    endpoint: str
    summary: str


OBJECTS_PREFIX: Final = "/-/objects"
"""Below it every stored path has a URL: for signed requests, and for those that `--downloads` serves."""

EVENTS_PREFIX: Final = "/-/events"

API_ROUTES: Final = (
    ApiRoute("GET", "/-/health", Access.PUBLIC, "health", "Whether the process lives"),
    ApiRoute("GET", "/-/ready", Access.PUBLIC, "ready", "Whether it can take uploads"),
    ApiRoute("GET", "/-/metrics", Access.OPERATOR, "metrics", "Figures for Prometheus"),
    ApiRoute("POST", "/-/reload", Access.OPERATOR, "reload", "Load plugins, tokens, certificates anew"),
    ApiRoute("GET", "/-/plugins", Access.OPERATOR, "plugins", "Plugins in force, and their upstreams"),
    ApiRoute("GET", "/-/plugins/routes", Access.OPERATOR, "plugins.routes", "Routes of plugins"),
    ApiRoute("GET", "/-/status", Access.OPERATOR, "status", "Facts about the running gateway"),
    ApiRoute("GET", "/-/doctor", Access.OPERATOR, "doctor", "What the checks of `gateway doctor` find"),
    ApiRoute("GET", "/-/live", Access.UPLOADER, "live", "What goes on now, each second"),
    ApiRoute("POST", "/-/live/process", Access.OWNER, "live.process", "The part of one process of it"),
    ApiRoute("GET", "/-/openapi.json", Access.CALLER, "openapi", "This document"),
    ApiRoute("GET", "/-/docs", Access.PUBLIC, "docs", "A page that shows this document"),
    ApiRoute("GET", "/-/pages/{filepath}", Access.PUBLIC, "pages", "Scripts and styles of pages"),
    ApiRoute("GET", "/-/session", Access.PUBLIC, "session", "Who calls, and what it may do"),
    ApiRoute("POST", "/-/session", Access.PUBLIC, "session.begin", "Sign in: a cookie for a token"),
    ApiRoute("DELETE", "/-/session", Access.PUBLIC, "session.end", "Sign out"),
    ApiRoute("GET", "/-/session/oidc", Access.PUBLIC, "session.oidc", "Sign in with OpenID Connect"),
    ApiRoute(
        "GET",
        "/-/session/oidc/callback",
        Access.PUBLIC,
        "session.oidc.callback",
        "Where the issuer sends the browser back to",
    ),
    ApiRoute("GET", "/-/uploads", Access.UPLOADER, "uploads", "Uploads, the newest first"),
    ApiRoute(
        "POST", "/-/uploads/removed", Access.OWNER, "uploads.removed", "Which uploads were removed here"
    ),
    ApiRoute("GET", "/-/uploads/{upload_id}", Access.UPLOADER, "upload", "What became of an upload"),
    ApiRoute(
        "POST",
        "/-/uploads/{upload_id}/release",
        Access.OPERATOR,
        "upload.release",
        "Publish a held upload",
    ),
    ApiRoute(
        "POST", "/-/uploads/{upload_id}/reject", Access.OPERATOR, "upload.reject", "Remove a held upload"
    ),
    ApiRoute(
        "POST",
        "/-/uploads/{upload_id}/give-up",
        Access.OWNER,
        "upload.give_up",
        "End the request that has a partial upload open",
    ),
    ApiRoute("GET", "/-/files", Access.OPERATOR, "files", "Stored files of a folder, or one file"),
    ApiRoute("DELETE", "/-/files", Access.OPERATOR, "files", "Remove a stored file"),
    ApiRoute("GET", "/-/files/{upload_id}", Access.OPERATOR, "file", "The file of an upload"),
    ApiRoute("DELETE", "/-/files/{upload_id}", Access.OPERATOR, "file", "Remove the file of an upload"),
    ApiRoute("PUT", "/-/objects/{filepath}", Access.SIGNED_OR_PEER, "object", "Store a file"),
    ApiRoute(
        "POST",
        "/-/objects/{filepath}",
        Access.SIGNED_OR_PEER,
        "object",
        "Store the file of a signed form",
    ),
    ApiRoute("GET", "/-/objects/{filepath}", Access.SIGNED_OR_PEER, "object", "A stored file"),
    ApiRoute(
        "DELETE", "/-/objects/{filepath}", Access.SIGNED_OR_PEER, "object", "Remove, for peers only"
    ),
    ApiRoute("GET", "/-/links", Access.OPERATOR, "links", "Links, the newest first"),
    ApiRoute("POST", "/-/links", Access.OPERATOR, "links.create", "Make a link; tells its URL once"),
    ApiRoute("POST", "/-/links/open", Access.PUBLIC, "links.open", "What a link is for, to who has it"),
    ApiRoute("GET", "/-/links/{link_id}", Access.OPERATOR, "link", "One link, and what came through it"),
    ApiRoute("DELETE", "/-/links/{link_id}", Access.OPERATOR, "link.revoke", "Revoke a link"),
    ApiRoute("GET", "/-/shared", Access.LINK, "shared", "Files of a share link, or all as an archive"),
    ApiRoute("GET", "/-/quotas", Access.OPERATOR, "quotas", "What is used of quotas, the most first"),
    ApiRoute("GET", "/-/events", Access.OPERATOR, "events", "Deliveries of events"),
    ApiRoute("GET", "/-/events/queue", Access.OPERATOR, "events.queue", "Where events are queued"),
    ApiRoute("GET", "/-/events/depth", Access.OPERATOR, "events.depth", "Waiting deliveries, counted"),
    ApiRoute("GET", "/-/events/errors", Access.OPERATOR, "events.errors", "Failed deliveries by error"),
    ApiRoute("GET", "/-/events/paused", Access.OPERATOR, "events.paused", "Handlers that are paused"),
    ApiRoute("POST", "/-/events/retry", Access.OPERATOR, "events.retry", "Retry deliveries now"),
    ApiRoute("POST", "/-/events/drop", Access.OPERATOR, "events.drop", "Delete unfinished deliveries"),
    ApiRoute("POST", "/-/events/replay", Access.OPERATOR, "events.replay", "Deliver again what is done"),
    ApiRoute("POST", "/-/events/pause", Access.OPERATOR, "events.pause", "Pause a handler"),
    ApiRoute("POST", "/-/events/resume", Access.OPERATOR, "events.resume", "Resume a handler"),
    ApiRoute("GET", "/-/events/{event_id}", Access.OPERATOR, "event", "One event and its deliveries"),
    ApiRoute(
        "POST",
        "/-/notifications",
        Access.DEFAULT,
        "notifications",
        "Bucket notifications of new objects",
    ),
)
"""A path belongs to the first pattern that matches it."""


class ApiMatch(NamedTuple):
    """The rows of the pattern that a path matches, by method, and the values of its variables."""

    routes: Mapping[str, ApiRoute]
    variables: Mapping[str, str]

    @property
    def access(self) -> Access:
        """Who may call it: the same for all methods of a pattern."""
        return next(iter(self.routes.values())).access

    def route(self, method: str) -> ApiRoute | None:
        """Return the row of a method, that of GET for HEAD."""
        return self.routes.get("GET" if method == "HEAD" else method)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods of the pattern, HEAD behind GET (RFC 9110 section 9.1)."""
        pairs = (("GET", "HEAD") if method == "GET" else (method,) for method in self.routes)
        return tuple(itertools.chain.from_iterable(pairs))


def match_api_route(segments: Sequence[str]) -> ApiMatch | None:
    """Return what decoded path segments, without the leading slash, match; None: no such endpoint."""
    for pattern, routes in _PATTERNS.items():
        variables = _variables(pattern, segments)
        if variables is not None:
            return ApiMatch(routes, variables)
    return None


def literal_names(prefix: str) -> frozenset[str]:
    """Return the segments that stand literally below `prefix`, such as `depth` below `/-/events`."""
    below = (route.pattern.removeprefix(f"{prefix}/") for route in API_ROUTES)
    return frozenset(name for name in below if "/" not in name and not name.startswith("{"))


def _variables(pattern: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    variables: dict[str, str] = {}
    for position, part in enumerate(pattern):
        if part == "{filepath}" and len(segments) > position:
            return {**variables, "filepath": "/".join(segments[position:])}
        if position >= len(segments):
            return None
        if part.startswith("{"):
            variables[part[1:-1]] = segments[position]
        elif part != segments[position]:
            return None
    return variables if len(pattern) == len(segments) else None


_PATTERNS: Final[Mapping[tuple[str, ...], Mapping[str, ApiRoute]]] = {
    tuple(pattern[1:].split("/")): {row.method: row for row in API_ROUTES if row.pattern == pattern}
    for pattern in dict.fromkeys(route.pattern for route in API_ROUTES)
}
