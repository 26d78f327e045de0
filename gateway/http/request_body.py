"""The body of a small request to the gateway itself, read whole.

The rule: bounded in bytes and in seconds, and the client is told to send only when somebody reads.
Bodies of uploads and of routes have readers of their own.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import Refusal, UnknownOutcome
from gateway.http.protocol import expects_continue, send_continue

SECONDS: Final = 10.0


async def read_whole(request: web.BaseRequest, most: int) -> bytes:
    """Return the body, of at most `most` bytes.

    Raises `Refusal`: `too_large`, `idle_timeout`, `incomplete_body`; `UnknownOutcome`: the client
    has gone.
    """
    if (request.content_length or 0) > most:
        raise _too_large(most)
    if expects_continue(request):
        await send_continue(request)
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            while not request.content.at_eof():
                body += await request.content.readany()
                if len(body) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise Refusal("idle_timeout", f"the body took more than {SECONDS:g} seconds") from None
    except OSError as fault:
        raise UnknownOutcome("the client went away in the middle of its body") from fault
    except (web.RequestPayloadError, HttpProcessingError) as fault:
        raise Refusal("incomplete_body", "the body is not well-formed") from fault
    return bytes(body)


def _too_large(most: int) -> Refusal:
    return Refusal("too_large", f"at most {most} bytes are taken here")
