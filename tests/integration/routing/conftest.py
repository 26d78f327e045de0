"""Fixtures of the routing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.routing.scripted import Serve, write


@pytest.fixture
def serve(start_gateway: StartGateway, tmp_path: Path) -> Serve:
    """Start a gateway with these routing plugins: `await serve(route(...), auth="token")`."""

    async def begin(*texts: str, **values: object) -> Gateway:
        folder = write(tmp_path / "plugins", *texts)
        return await start_gateway(
            plugins=[str(folder)],
            **{k: v for k, v in {"auth": "none", **values}.items() if v is not None},
        )

    return begin
