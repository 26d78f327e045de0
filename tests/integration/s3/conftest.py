"""Fixtures: a storage in a bucket of its own, on SeaweedFS or whichever server a test asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.settings.values import Bucket
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from tests.support.s3.fixtures import server

__all__ = ["server"]


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.close()


@pytest.fixture
def place(bucket: str) -> Bucket:
    return Bucket(bucket, "a prefix")


@pytest.fixture
def storage(place: Bucket, clients: Clients) -> S3Storage:
    return S3Storage(place, clients)
