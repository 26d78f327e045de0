"""Fixtures of the JWT tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.jwt.issuing import FakeIssuer


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    """An issuer on a port of this machine."""
    async with FakeIssuer().serving() as serving:
        yield serving
