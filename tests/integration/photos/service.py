"""The photo service as its clients meet it: the published web client, step by step."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession
from yarl import URL

from tests.support.harness import TIMEOUT
from tests.support.pictures import picture

EVENT = "1234"


@dataclass
class Client:
    """A client of a gateway with plugins/photos; `token` as the gateway's, or none."""

    session: ClientSession
    url: str
    token: str = ""
    event: str = EVENT
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def photos(self) -> str:
        return f"{self.url}/events/{self.event}/photos"

    async def ask(self, method: str, url: str, **how: Any) -> tuple[int, Any]:
        """Ask the API: status, and what the answer's JSON says."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.session.request(method, url, headers=headers, **how) as answer:
            body = await answer.read()
            return answer.status, await answer.json() if body else None

    async def initiate(self, **facts: Any) -> tuple[int, Any]:
        facts = {"title": "Keynote Speech", "contentType": "image/png", **facts}
        return await self.ask("POST", f"{self.photos}/initiate-upload", json=facts)

    async def put(self, url: str, content: bytes, content_type: str = "image/png") -> int:
        """Send the bytes as the published client does: the URL, the body, the type, nothing else."""
        headers = {"Content-Type": content_type}
        async with self.session.put(URL(url, encoded=True), data=content, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def upload(self, content: bytes | None = None, **facts: Any) -> str:
        """Upload a photo; return its id once its bytes are stored."""
        status, begun = await self.initiate(**facts)
        assert status == 201, begun
        content_type = facts.get("contentType", "image/png")
        content = picture() if content is None else content
        assert await self.put(begun["s3PutObjectUrl"], content, content_type) in {200, 201}
        return str(begun["photoId"])

    async def looked_at(self, *ids: str) -> list[dict[str, Any]]:
        """Wait until the gateway has looked at these photos; return what it says of them."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            _, found = await self.ask("GET", f"{self.photos}?ids={','.join(ids)}")
            if len(found["photos"]) == len(ids):
                return list(found["photos"])
            await asyncio.sleep(0.02)  # the list is the only public sign; its end is what is awaited
        raise AssertionError(f"not looked at: {ids}")

    async def listed(self, query: str = "") -> list[dict[str, Any]]:
        status, found = await self.ask("GET", f"{self.photos}{query}")
        assert status == 200, found
        return list(found["photos"])

    async def fetch(self, url: str) -> tuple[int, str, bytes]:
        """Follow a signed URL: status, type, bytes."""
        async with self.session.get(URL(url, encoded=True)) as answer:
            return answer.status, answer.content_type, await answer.read()
