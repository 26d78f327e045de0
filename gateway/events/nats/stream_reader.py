"""Events room, NATS: reading the streams as they lie, for those who watch.

The rule: it claims nothing and changes nothing but what it is told to delete. Every question is one
bounded request to the stream's leader, so that what was just written is seen.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from typing import Any, Final

import nats.js.errors

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import Connection, reaching
from gateway.events.nats.names import StreamNames, name_of

_LOOKS: Final = 20
_LOOK_SECONDS: Final = 0.1

_STATUS_LINE: Final = b"NATS/1.0\r\n"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message as it lies in a stream. `told` is its body, `{}` where that is no JSON object."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    told: dict[str, Any]

    @property
    def handler(self) -> str:
        """Whom its subject names."""
        return name_of(self.subject.split(".")[-2])


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """How far a handler's consumer is: `delivered` is the last sequence it gave out for a first time."""

    handler: str
    delivered: int
    settled: int
    ready: int
    outstanding: int
    paused: bool


class StreamReader:
    """Questions to the streams. All raise `EventEngineUnavailable`."""

    def __init__(self, connection: Connection, names: StreamNames) -> None:
        self._connection = connection
        self.names = names

    async def next(self, stream: str, subject: str, after: int) -> StreamMessage | None:
        """Return the first message of `subject` (wildcards allowed) behind sequence `after`."""
        return await self._get(stream, {"seq": after + 1, "next_by_subj": subject})

    async def last(self, stream: str, subject: str) -> StreamMessage | None:
        """Return the newest message of one very subject."""
        return await self._get(stream, {"last_by_subj": subject})

    async def newest(self, stream: str) -> int:
        """Return the sequence of the last message that came into the stream, gone or not."""
        async with reaching():
            told = await self._connection.api(f"STREAM.INFO.{stream}", {})
        return int(told["state"]["last_seq"])

    async def every(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[StreamMessage]:
        """Yield all messages of `subject` in order; what comes meanwhile may be among them."""
        while (found := await self.next(stream, subject, after)) is not None:
            after = found.sequence
            yield found

    async def counts(self, stream: str, kind: str) -> dict[str, int]:
        """Return how many messages of a kind there are for each handler."""
        sums: dict[str, int] = {}
        offset = 0
        while True:
            request = {"subjects_filter": self.names.of(kind), "offset": offset}
            async with reaching():
                told = await self._connection.api(f"STREAM.INFO.{stream}", request)
            found = told["state"].get("subjects") or {}
            for subject, count in found.items():
                handler = name_of(subject.split(".")[-2])
                sums[handler] = sums.get(handler, 0) + int(count)
            offset += len(found)
            if not found or offset >= int(told.get("total", 0)):
                return sums

    async def consumers(self) -> list[ConsumerProgress]:
        """Return the consumers of all handlers; of none that has no leader it says nothing wrong."""
        for _ in range(_LOOKS):
            known, missing = await self._consumers_now()
            if not missing:
                return known
            await asyncio.sleep(_LOOK_SECONDS)
        raise EventEngineUnavailable("NATS: some handlers' consumers have no leader now")

    async def _consumers_now(self) -> tuple[list[ConsumerProgress], bool]:
        known: list[ConsumerProgress] = []
        while True:
            async with reaching():
                told = await self._connection.api(
                    f"CONSUMER.LIST.{self.names.queue}", {"offset": len(known)}
                )
            page = told.get("consumers") or []
            known += map(_consumer, page)
            if told.get("missing"):
                return known, True
            if not page or len(known) >= int(told.get("total", 0)):
                return known, False

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; False where it was gone."""
        try:
            async with reaching():
                await self._connection.api(
                    f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True}
                )
        except Exception as fault:
            if isinstance(fault.__cause__, nats.js.errors.APIError):
                return False
            raise
        return True

    async def purge(self, stream: str, subject: str) -> None:
        """Delete all messages of `subject`."""
        async with reaching():
            await self._connection.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def _get(self, stream: str, request: Mapping[str, Any]) -> StreamMessage | None:
        async with reaching():
            try:
                answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", request)
            except nats.js.errors.NotFoundError:
                return None
        message = answer["message"]
        data = base64.b64decode(message.get("data", ""))
        headers = _headers(base64.b64decode(message.get("hdrs", "")))
        return StreamMessage(int(message["seq"]), str(message["subject"]), headers, data, _told(data))


def _consumer(told: Mapping[str, Any]) -> ConsumerProgress:
    return ConsumerProgress(
        handler=str(told["config"].get("description") or name_of(told["name"])),
        delivered=int(told["delivered"]["stream_seq"]),
        settled=int(told["ack_floor"]["stream_seq"]),
        ready=int(told["num_pending"]),
        outstanding=int(told["num_ack_pending"]),
        paused=bool(told.get("paused", False)),
    )


def _headers(raw: bytes) -> dict[str, str]:
    if not raw.startswith(_STATUS_LINE):
        return {}
    return {key: str(value) for key, value in BytesParser().parsebytes(raw[len(_STATUS_LINE) :]).items()}


def _told(data: bytes) -> dict[str, Any]:
    try:
        read = json.loads(data)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
