"""Fixtures: a gateway that serves plugins/photos, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.photos.service import Client
from tests.support import PROJECT
from tests.support.jwt.issuing import FakeIssuer
from tests.support.s3.fixtures import server

__all__ = ["server"]

PLUGIN = PROJECT / "plugins" / "photos"
TOKENS = [f"{name}:{token_digest(f'secret-{name}')}" for name in ("alice", "bob")]

Serve = Callable[..., Awaitable[Client]]


@pytest.fixture(scope="session", autouse=True)
def plugin_modules() -> Any:
    """Let tests import the plugin's modules by their names, as its scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLUGIN))
        yield


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with ClientSession() as opened:
        yield opened


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    """An issuer of JSON Web Tokens."""
    async with FakeIssuer().serving() as serving:
        yield serving


@pytest.fixture
async def serve(start_gateway: StartGateway, session: ClientSession, tmp_path: Path) -> Serve:
    """Start a gateway with the plugin: `await serve(auth="none", config={"max_bytes": 1000})`."""

    async def serve_one(*, config: dict[str, Any] | None = None, **flags: Any) -> Client:
        folder = PLUGIN
        if config is not None:
            folder = tmp_path / "photos"
            _copy(PLUGIN, folder)
            lines = "".join(f"  {key}: {value}\n" for key, value in config.items())
            (folder / "photos.yaml").write_text(f"name: photos\nconfig:\n{lines}")
        gateway = await start_gateway(**{"auth": "none", "plugins": [str(folder)], **flags})
        return Client(session, url_of(gateway))

    return serve_one


def url_of(gateway: Gateway) -> str:
    host, port = gateway.address
    return f"http://{host}:{port}"


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
