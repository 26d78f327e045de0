"""The engines and the storages that the suites run over."""

from __future__ import annotations

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.journal import journal
from tests.support.nats.fixtures import cluster, connect, server
from tests.support.s3.servers import S3Server

__all__ = ["cluster", "connect", "journal", "server"]


@pytest.fixture(
    params=[
        "file",
        pytest.param("s3", marks=pytest.mark.slow),
        pytest.param("rclone", marks=pytest.mark.slow),
    ]
)
async def begin(
    request: pytest.FixtureRequest,
    start_gateway: StartGateway,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> StartGateway:
    """Start gateways on one of the storages."""
    if request.param == "file":
        return start_gateway
    server: S3Server = request.getfixturevalue(request.param)
    await server.make(bucket)
    server.set_environment(monkeypatch)

    async def on_bucket(**values: object) -> Gateway:
        return await start_gateway(storage=f"s3://{bucket}/a prefix", **values)

    return on_bucket
