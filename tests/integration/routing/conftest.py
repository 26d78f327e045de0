"""Fixtures of the routing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.routing.proxying import paths
from tests.support.routing.scripted import Serve, write


@pytest.fixture(autouse=True)
def fronts_as_gateways(short_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fronts have the short path where the gateways of a test have it."""
    monkeypatch.setattr(paths, "short", short_path)


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
