"""Fixtures: a real S3 server of each kind."""

from __future__ import annotations

import pytest

from tests.support.s3.servers import S3Server


@pytest.fixture(params=["s3", "rclone"])
async def server(
    request: pytest.FixtureRequest, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> S3Server:
    """Each kind of server in turn, the environment pointed at it."""
    found: S3Server = request.getfixturevalue(request.param)
    await found.make(bucket)
    found.set_environment(monkeypatch)
    return found
