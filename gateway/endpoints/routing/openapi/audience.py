"""What a caller may call: routes, uploads and the gateway's own endpoints.

Each rule is the one that requests are held to, so nothing is shown to those who may not call it. What a
handler of uploads decides is not known beforehand: here the default authorization stands for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from gateway.auth.api_keys import ApiKey
from gateway.auth.authenticator import Auth
from gateway.auth.request import Caller, IncomingRequest
from gateway.auth.roles import UPLOADER
from gateway.domain.api_routes import API_ROUTES, Access, ApiRoute
from gateway.domain.path_template import RouteTemplate
from gateway.domain.template_segments import Segments
from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.route_access import RouteAccess, check_client
from gateway.errors import Refusal
from gateway.settings import Settings

ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods of a route that allows all."""


class VisibleOperations(NamedTuple):
    """The operations that a caller sees: routes with methods, and `file_methods` of upload paths."""

    routes: tuple[tuple[Route, tuple[str, ...]], ...]
    file_methods: tuple[str, ...]
    endpoints: tuple[ApiRoute, ...]

    @property
    def identity(self) -> Hashable:
        """Equal for those who see the same operations of the same set of routes."""
        names = tuple((route.name, methods) for route, methods in self.routes)
        return names, self.file_methods, self.endpoints


def file_methods(settings: Settings) -> tuple[str, ...]:
    """Return the methods on files that are served."""
    reads = ("GET",) if settings.downloads or settings.listing else ()
    return (*reads, "PUT", "POST", *(("DELETE",) if settings.deletes else ()))


def all_operations(routes: Iterable[Route], settings: Settings) -> VisibleOperations:
    """Return what an operator sees."""
    shown = tuple((route, tuple(route.operations) or ANY_METHOD) for route in routes)
    return VisibleOperations(shown, file_methods(settings), API_ROUTES)


class Audience:
    """Decides what the sender of a request sees."""

    def __init__(self, auth: Auth, settings: Settings) -> None:
        self._auth = auth
        self._access = RouteAccess(auth)
        self._settings = settings

    async def visible(self, incoming: IncomingRequest, routes: Iterable[Route]) -> VisibleOperations:
        """Return the operations that a caller may call; operators see all of them.

        Raises as `Auth.authenticate` does with `jwt`, and `Refusal` as `Auth.operator` where the caller
        may call nothing.
        """
        if incoming.owner:
            return all_operations(routes, self._settings)
        caller = await self._auth.authenticate(incoming, jwt=True)
        incoming.reject_unenforceable_grant()
        refusal: Refusal | None = None
        try:
            incoming.operator = self._auth.operator(caller.principal)
            if incoming.operator is not None:
                return all_operations(routes, self._settings)
        except Refusal as error:
            refusal = error
        remote = self._auth.proxies.client_address(incoming.remote, incoming.headers)
        shown = tuple(self._routes(caller, remote, routes))
        files = self._files(caller.principal, caller.key)
        if refusal is not None and not shown and not files:
            raise refusal
        return VisibleOperations(shown, files, self._endpoints(caller, refusal is None, files))

    def _routes(
        self, caller: Caller, remote: str | None, routes: Iterable[Route]
    ) -> Iterable[tuple[Route, tuple[str, ...]]]:
        for route in routes:
            methods = tuple(route.operations) or ANY_METHOD
            if caller.key is not None:
                methods = _methods_of_key(caller.key, methods, RouteTemplate.parse(route.path).segments)
            if methods and self._may_call(route, caller.principal, remote):
                yield route, methods

    def _may_call(self, route: Route, principal: Mapping[str, Any] | None, remote: str | None) -> bool:
        try:
            check_client(route.clients, remote)
            self._access.check_caller(route, principal)
        except Refusal:
            return False
        return True

    def _files(self, principal: Mapping[str, Any] | None, key: ApiKey | None) -> tuple[str, ...]:
        try:
            self._auth.authorize(principal)
        except Refusal:
            return ()
        methods = file_methods(self._settings)
        segments = self._settings.upload_template.segments
        return methods if key is None else _methods_of_key(key, methods, segments)

    def _endpoints(
        self, caller: Caller, is_operator: bool, files: tuple[str, ...]
    ) -> tuple[ApiRoute, ...]:
        """Return the endpoints for a caller that is not identified as an operator."""
        accesses = {Access.PUBLIC, Access.CALLER}
        if is_operator:  # everyone is
            accesses |= {Access.OPERATOR, Access.UPLOADER, Access.DEFAULT}
        if self._auth.role(caller) == UPLOADER:
            accesses.add(Access.UPLOADER)
        downloads = self._settings.downloads and "GET" in files
        return tuple(
            api
            for api in API_ROUTES
            if api.access in accesses
            or (downloads and api.access is Access.SIGNED_OR_PEER and api.method == "GET")
        )


def _methods_of_key(key: ApiKey, methods: tuple[str, ...], segments: Segments) -> tuple[str, ...]:
    return tuple(method for method in methods if key.scope.may_reach(method, segments))
