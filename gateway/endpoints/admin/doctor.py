"""`GET /-/doctor`: what `gateway doctor` finds with the settings of the running server.

The checks run in a process of their own: they load plugins, wait for other servers, and may hang. One
such process runs at a time, and all who ask meanwhile get what it finds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.domain.units import iso_time
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.admin")

TTL: Final = 60.0
"""Seconds for which what was found is told again."""

MIN_TTL: Final = 5.0
"""Seconds for which it is told again to those who want it anew."""

TIMEOUT: Final = 90.0
"""Seconds that all checks may take; a bucket and servers of NATS that hang take 40."""

MAX_OUTPUT: Final = 1 << 20

COMMAND: Final = (sys.executable, "-m", "gateway.cli.doctor")


class DoctorEndpoint:
    """Serves `/-/doctor`. `settings` are those that the server runs with."""

    def __init__(self, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._command = command
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._latest: dict[str, Any] = {}
        self._ended = -TTL

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"doctor": self._get}

    def stop(self) -> None:
        """End the checks that run."""
        if self._running is not None:
            self._running.cancel()

    async def _get(self, incoming: IncomingRequest) -> Response:
        anew = incoming.params.get("refresh") == ["true"]
        if time.monotonic() - self._ended >= (MIN_TTL if anew else TTL):
            if self._running is None:
                self._running = asyncio.create_task(self._examine())
            try:
                await asyncio.shield(self._running)
            except OSError as error:
                raise Refusal("overloaded", f"the checks cannot be run now: {error}") from error
        return json_response(self._latest)

    async def _examine(self) -> dict[str, Any]:
        started, begun = time.monotonic(), time.time()
        try:
            findings, complete = await self._findings()
            seconds = round(time.monotonic() - started, 1)
            about = {"time": iso_time(begun), "seconds": seconds, "complete": complete}
            self._latest = {**about, "findings": findings}
            self._ended = time.monotonic()
            return self._latest
        finally:
            self._running = None

    async def _findings(self) -> tuple[list[dict[str, Any]], bool]:
        """Run the checks; return what they find, and whether all of them came to their end."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, limit=MAX_OUTPUT
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        findings: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(TIMEOUT):
                process.stdin.write(pickle.dumps(self._settings))
                process.stdin.close()
                async for line in process.stdout:
                    findings.append(json.loads(line))  # noqa: PERF401 - those before an error stay
                code = await process.wait()
        except (TimeoutError, ConnectionError, ValueError) as error:
            reason = f"no end after {TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
            log.warning("the checks of doctor failed: %s", reason, extra=event("doctor.failed"))
            return findings, False
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code:
            log.warning("the checks of doctor ended with %d", code, extra=event("doctor.failed"))
        return findings, code == 0
