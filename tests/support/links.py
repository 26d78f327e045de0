"""Links for tests: made over HTTP as an operator does, used as somebody else does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway

OPERATOR: Final = "secret-operator"
TOKENS: Final = [f"olga:{token_digest(OPERATOR)}"]
AS_OPERATOR: Final = {"X-Auth-Token": OPERATOR}


@dataclass(frozen=True, slots=True)
class MadeLink:
    """A link of a gateway, as its maker was told of it."""

    base: str
    told: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.told["id"])

    @property
    def url(self) -> str:
        return str(self.told["url"])

    @property
    def secret(self) -> str:
        return self.url.partition("#")[2]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    async def opened(self, password: str | None = None) -> dict[str, Any]:
        """Return what `POST /-/links/open` tells."""
        body = {} if password is None else {"password": password}
        return await asked("POST", f"{self.base}/-/links/open", self.headers, body)

    async def row(self) -> dict[str, Any]:
        """Return what operators are told of it."""
        return await asked("GET", f"{self.base}/-/links/{self.id}", AS_OPERATOR)

    async def revoke(self) -> None:
        await asked("DELETE", f"{self.base}/-/links/{self.id}", AS_OPERATOR)


async def make_link(gateway: Gateway | str, kind: str, folder: str, **terms: object) -> MadeLink:
    """Make a link of a gateway whose operator has `OPERATOR`."""
    base = gateway if isinstance(gateway, str) else gateway.url
    body = {"kind": kind, "folder": folder, **terms}
    return MadeLink(base, await asked("POST", f"{base}/-/links", AS_OPERATOR, body))


async def asked(
    method: str, url: str, headers: dict[str, str], body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON of an answer, with its `status`."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers, json=body) as response,
    ):
        answer: dict[str, Any] = await response.json()
        return {**answer, "status": response.status}
