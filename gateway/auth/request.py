"""One request: its target is split, its query parsed and its caller authenticated once each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from gateway.auth.api_keys import ApiKey
from gateway.auth.links.link import Link
from gateway.auth.principals import AMBIENT_KINDS
from gateway.auth.sessions.session import Session
from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.errors import Refusal
from gateway.signing.urls import reject_unenforceable
from gateway.telemetry.request_facts import RequestFacts


class Caller(NamedTuple):
    """Who sends a request.

    `principal` is `{"name", "kind", ...}`, None for an unknown caller. `grant` is what its signed URL
    allows. `rejected` says why its JSON Web Token is not accepted. `key` is its API key, also where it
    has signed in with it; `session` that of a browser which has signed in; `link` its link.
    """

    principal: dict[str, Any] | None
    grant: Grant | None = None
    rejected: Refusal | None = None
    key: ApiKey | None = None
    link: Link | None = None
    session: Session | None = None

    @property
    def is_ambient(self) -> bool:
        """Whether a browser added the credential by itself: a foreign page could act for the user."""
        kind = None if self.principal is None else self.principal["kind"]
        return self.session is not None or kind in AMBIENT_KINDS


class RequestHead:
    """A request without its body and its connection, as every check takes it.

    `raw_target`, `raw_path` and `raw_query` are still encoded. `remote` is the address of the peer.
    `owner` tells that the request came over the owner's Unix socket. `caller` is filled by
    `Auth.authenticate_now` or `Auth.authenticate`. The dispatcher fills `operator`, the principal that
    may use operators' endpoints, or `uploader`, the principal that sees its own uploads alone, and
    `variables`, those of the matched `ApiRoute`. `whole_lengths`
    are the lengths of the whole file where the body may be a part of it, in digits: none where it is not
    told; None where Content-Length has it. `facts` are told of it when it has ended. `certificate` is
    the name in the client's certificate. `origins` are those whose pages may act for a user, None:
    those of the settings. Raises `Refusal("bad_path")` for a bad target.
    """

    __slots__ = (
        "_params", "caller", "certificate", "facts", "headers", "method", "operator", "origins", "owner",
        "raw_path", "raw_query", "raw_target", "remote", "uploader", "variables", "whole_lengths",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        raw_target: str,
        headers: Mapping[str, str],
        remote: str | None,
        *,
        owner: bool = False,
        facts: RequestFacts | None = None,
    ) -> None:
        self.method = method
        self.raw_target = raw_target
        self.headers = headers
        self.remote = remote
        self.owner = owner
        self.operator: Mapping[str, Any] | None = None
        self.uploader: Mapping[str, Any] | None = None
        self.variables: Mapping[str, str] = {}
        self.raw_path, self.raw_query = paths.split_target(raw_target)
        self.facts = RequestFacts() if facts is None else facts
        self.caller: Caller | None = None
        self.certificate: str | None = None
        self.origins: Sequence[str] | None = None
        self.whole_lengths: tuple[str, ...] | None = None
        self._params: dict[str, list[str]] | None = None

    @property
    def params(self) -> dict[str, list[str]]:
        """The fields of the query, decoded. Raises `Refusal("bad_request")`."""
        if self._params is None:
            self._params = paths.parse_query(self.raw_query)
        return self._params

    def reject_unenforceable_grant(self) -> None:
        """Refuse a signed URL whose terms only an endpoint that stores files can enforce.

        Raises `Refusal("not_granted")`.
        """
        if self.caller is not None and self.caller.grant is not None:
            reject_unenforceable(self.caller.grant, self.headers)


class IncomingRequest(RequestHead):
    """A request with its body and its connection, as it passes through the endpoints."""

    __slots__ = ("request",)

    def __init__(
        self,
        request: web.BaseRequest,
        certificate: str | None = None,
        *,
        owner: bool = False,
        facts: RequestFacts | None = None,
    ) -> None:
        head = request.method, request.raw_path, request.headers, request.remote
        super().__init__(*head, owner=owner, facts=facts)
        self.certificate = certificate
        self.request = request
