"""Reads the streams for the ledger, without claiming anything.

Every read is one bounded request to the stream's leader, so that what was just written is seen.
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
from gateway.events.nats.connection import Connection, mapped_errors
from gateway.events.nats.streams import StreamNames, name_of

_MAX_RETRIES: Final = 20
_RETRY_INTERVAL: Final = 0.1

_STATUS_LINE: Final = b"NATS/1.0\r\n"


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """A message of a stream. `fields` is its JSON object, `{}` where it has none."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes
    fields: dict[str, Any]

    @property
    def handler(self) -> str:
        """The handler in its subject."""
        return name_of(self.subject.split(".")[-2])


@dataclass(frozen=True, slots=True)
class ConsumerProgress:
    """The position of a handler's consumer: `delivered` is the last sequence that it delivered first."""

    handler: str
    delivered: int
    settled: int
    ready: int
    outstanding: int
    paused: bool


class StreamReader:
    """Reads of the streams. Every method raises `EventEngineUnavailable`."""

    def __init__(self, connection: Connection, names: StreamNames) -> None:
        self._connection = connection
        self.names = names

    async def next(self, stream: str, subject: str, after: int) -> StreamMessage | None:
        """Return the first message of `subject` (wildcards allowed) behind sequence `after`."""
        return await self._get(stream, {"seq": after + 1, "next_by_subj": subject})

    async def last(self, stream: str, subject: str) -> StreamMessage | None:
        """Return the newest message of exactly `subject`."""
        return await self._get(stream, {"last_by_subj": subject})

    async def newest(self, stream: str) -> int:
        """Return the sequence of the last message of the stream, deleted or not."""
        async with mapped_errors():
            info = await self._connection.api(f"STREAM.INFO.{stream}", {})
        return int(info["state"]["last_seq"])

    async def every(self, stream: str, subject: str, after: int = 0) -> AsyncIterator[StreamMessage]:
        """Yield all messages of `subject` in order; new ones may be among them."""
        while (message := await self.next(stream, subject, after)) is not None:
            after = message.sequence
            yield message

    async def counts(self, stream: str, kind: str) -> dict[str, int]:
        """Count the messages of a kind by handler."""
        sums: dict[str, int] = {}
        offset = 0
        while True:
            request = {"subjects_filter": self.names.subject_of(kind), "offset": offset}
            async with mapped_errors():
                info = await self._connection.api(f"STREAM.INFO.{stream}", request)
            subjects = info["state"].get("subjects") or {}
            for subject, count in subjects.items():
                handler = name_of(subject.split(".")[-2])
                sums[handler] = sums.get(handler, 0) + int(count)
            offset += len(subjects)
            if not subjects or offset >= int(info.get("total", 0)):
                return sums

    async def consumers(self) -> list[ConsumerProgress]:
        """Return the consumers of all handlers; wait for those without a leader."""
        for _ in range(_MAX_RETRIES):
            consumers, missing = await self._consumers_now()
            if not missing:
                return consumers
            await asyncio.sleep(_RETRY_INTERVAL)
        raise EventEngineUnavailable("NATS: some handlers' consumers have no leader now")

    async def _consumers_now(self) -> tuple[list[ConsumerProgress], bool]:
        consumers: list[ConsumerProgress] = []
        while True:
            request = f"CONSUMER.LIST.{self.names.queue}", {"offset": len(consumers)}
            async with mapped_errors():
                answer = await self._connection.api(*request)
            page = answer.get("consumers") or []
            consumers += map(_consumer, page)
            if answer.get("missing"):
                return consumers, True
            if not page or len(consumers) >= int(answer.get("total", 0)):
                return consumers, False

    async def delete(self, stream: str, sequence: int) -> bool:
        """Delete one message; return False where it was deleted already."""
        request = {"seq": sequence, "no_erase": True}
        try:
            async with mapped_errors():
                await self._connection.api(f"STREAM.MSG.DELETE.{stream}", request)
        except Exception as error:
            if isinstance(error.__cause__, nats.js.errors.APIError):
                return False
            raise
        return True

    async def purge(self, stream: str, subject: str) -> None:
        """Delete all messages of `subject`."""
        async with mapped_errors():
            await self._connection.api(f"STREAM.PURGE.{stream}", {"filter": subject})

    async def _get(self, stream: str, request: Mapping[str, Any]) -> StreamMessage | None:
        async with mapped_errors():
            try:
                answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", request)
            except nats.js.errors.NotFoundError:
                return None
        message = answer["message"]
        data = base64.b64decode(message.get("data", ""))
        headers = _headers(base64.b64decode(message.get("hdrs", "")))
        return StreamMessage(int(message["seq"]), message["subject"], headers, data, _json_object(data))


def _consumer(info: Mapping[str, Any]) -> ConsumerProgress:
    return ConsumerProgress(
        handler=str(info["config"].get("description") or name_of(info["name"])),
        delivered=int(info["delivered"]["stream_seq"]),
        settled=int(info["ack_floor"]["stream_seq"]),
        ready=int(info["num_pending"]),
        outstanding=int(info["num_ack_pending"]),
        paused=bool(info.get("paused", False)),
    )


def _headers(raw: bytes) -> dict[str, str]:
    if not raw.startswith(_STATUS_LINE):
        return {}
    return {key: str(value) for key, value in BytesParser().parsebytes(raw[len(_STATUS_LINE) :]).items()}


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
