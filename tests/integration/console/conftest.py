"""Fixtures: gateways whose operations the page shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.routing.scripted import Serve, write

TOKENS = [f"alice:{token_digest('secret-alice')}"]


@pytest.fixture
def serve(start_gateway: StartGateway, tmp_path: Path) -> Serve:
    """Start a gateway with these routing plugins: `await serve(route(...), auth="token")`."""

    async def begin(*texts: str, **values: object) -> Gateway:
        folder = write(tmp_path / "plugins", *texts) if texts else None
        plugins = {"plugins": [str(folder)]} if folder else {}
        return await start_gateway(**{"auth": "token", "tokens": TOKENS, **plugins, **values})

    return begin
