"""Answers: JSON, refusals in the error table's words, and short ones in one piece.

One rule: what a client reads of an error is written here and nowhere else.
"""

from __future__ import annotations

import json
from typing import Any, Final

from aiohttp import HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from gateway.errors import Refusal, Terminated

quoted: Final = json.JSONEncoder(ensure_ascii=False).encode
"""Return a text as JSON writes it."""


def json_answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """Return `body` as JSON."""
    text = json.dumps(body, ensure_ascii=False, default=str) + "\n"
    answer = web.Response(status=status, text=text, content_type="application/json")
    for name, value in headers.items():
        answer.headers[name.replace("_", "-")] = value
    return answer


class SmallJsonResponse(web.StreamResponse):
    """A short JSON text that is sent in one piece, past aiohttp's general (and slower) machinery."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status=status)
        self.content = text.encode()
        self._sent = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Note how the connection goes on; nothing is sent yet."""
        self._request = request
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive

    async def write_eof(self, data: bytes = b"") -> None:
        """Send head and body. Raises `ConnectionError` where the client has gone."""
        request = self._request
        if self._sent or request is None:
            return
        self._sent = self._eof_sent = True
        if request.transport is None:
            raise ConnectionResetError("the client has gone")
        request.transport.write(self._head(request) + self.content)

    def _head(self, request: web.BaseRequest) -> bytes:
        old = request.version < HttpVersion11
        lines = [
            f"HTTP/1.{0 if old else 1} {self.status} {self.reason}",
            "Content-Type: application/json; charset=utf-8",
            *[f"{name}: {value}" for name, value in self.headers.items()],
            f"Content-Length: {len(self.content)}",
            f"Date: {rfc822_formatted_time()}",
        ]
        if self.keep_alive == old:  # otherwise it goes without saying (RFC 9112 section 9.3)
            lines.append("Connection: keep-alive" if old else "Connection: close")
        return "\r\n".join([*lines, "", ""]).encode()


def refusal_answer(refusal: Refusal) -> web.Response:
    """Return the answer for a refusal: the table's status and words, or the handler's own."""
    if isinstance(refusal, Terminated):
        answer = web.Response(status=refusal.status, body=refusal.body)
        answer.headers["Content-Type"] = refusal.content_type
    else:
        body: dict[str, Any] = {"error": refusal.code, "message": refusal.message, **refusal.details}
        if refusal.upload_id is not None:
            body["upload_id"] = refusal.upload_id
        answer = json_answer(body, refusal.status)
    answer.headers.update(refusal.headers)
    if refusal.headers.get("Connection") == "close":
        answer.force_close()
    return answer
