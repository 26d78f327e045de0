"""The promise of an upload, checked after crashes: uploads with tags, a handler that records each
complete run, and a judge of what clients were answered, what is stored and what has run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gateway.domain.model import UPLOADED
from gateway.server.app import Gateway
from tests.support.harness import GatewayProcess, complete_lines, put, write_plugin

RETRY = "{attempts: 50, backoff: 0.05, max_backoff: 0.2}"
READ = """try:
          async with files.open(event) as reader:
              digest = hashlib.sha256(await reader.read()).hexdigest()
      except Superseded:
          pass"""

_PLUGIN = """\
name: {name}
event: {event}
retry: {retry}
{more}script: |
  import hashlib
  from gateway.errors import Superseded

  async def {name}(event, handle):
      digest = None
      {work}
      run = {{"tag": event["headers"].get("X-Tag", event["path"]), "path": event["path"]}}
      with open({log!r}, "a") as log:
          log.write(json.dumps({{**run, "attempt": event["attempt"], "sha256": digest}}) + "\\n")
"""


def body_of(tag: str, size: int) -> bytes:
    """Return the body of the upload `tag`: no two are the same, not even in a piece."""
    block = hashlib.sha256(tag.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


class RunRecorder:
    """A handler that records each complete run, with the digest of the file that it read."""

    def __init__(
        self,
        folder: Path,
        name: str = "recorder",
        *,
        work: str = READ,
        retry: str = RETRY,
        more: str = "",
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.text = _PLUGIN.format(
            name=name, event=UPLOADED, retry=retry, more=more, work=work, log=str(self.log)
        )
        self.plugins = write_plugin(folder / "plugins", self.text, f"{name}.yaml")
        self.flags = ("--plugins", str(self.plugins))

    def runs(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in complete_lines(self.log)]

    def tags(self) -> list[str]:
        return [run["tag"] for run in self.runs()]

    def paths(self) -> set[str]:
        return {run["path"] for run in self.runs()}

    def digests(self) -> dict[str, str | None]:
        """The digest that each tag's latest run saw; None where a newer file had its name by then."""
        return {run["tag"]: run["sha256"] for run in self.runs()}


@dataclass
class UploadAttempt:
    """One try to upload: when it began and ended, and its status, None without a response."""

    name: str
    tag: str
    size: int
    status: int | None = None
    began: float = 0.0
    ended: float = float("inf")

    @property
    def body(self) -> bytes:
        return body_of(self.tag, self.size)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


async def status_of(
    gateway: Gateway | GatewayProcess, target: str, body: bytes, *lines: str
) -> int | None:
    """Upload `body`; return the status, None when the connection broke without a response."""
    try:
        return (await put(gateway, target, body, *lines)).status
    except TimeoutError:  # an OSError: a gateway that hangs is no broken connection
        raise
    except (OSError, asyncio.IncompleteReadError):
        return None


async def upload(
    gateway: Gateway | GatewayProcess, name: str, tag: str | None = None, size: int = 1000
) -> UploadAttempt:
    """Upload the body of `tag` as `name`."""
    attempt = UploadAttempt(name, tag or name, size, began=time.monotonic())
    await send(gateway, attempt)
    return attempt


async def send(gateway: Gateway | GatewayProcess, attempt: UploadAttempt, *lines: str) -> None:
    """Upload `attempt`, with more header lines if there are any, and keep its outcome."""
    lines = (f"X-Tag: {attempt.tag}", *lines)
    attempt.status = await status_of(gateway, f"/upload/{attempt.name}", attempt.body, *lines)
    attempt.ended = time.monotonic()


@dataclass
class Verdict:
    """What broke the promise; every list is empty where it was kept."""

    missing: list[str] = field(default_factory=list)
    """2xx, and a handler never completed a run."""

    torn: list[str] = field(default_factory=list)
    """2xx, and no file; or a file with bytes that nobody uploaded whole."""

    visible: list[str] = field(default_factory=list)
    """Refused, and stored or handled."""

    partial: list[str] = field(default_factory=list)
    """No response, and a file without its runs, or a run without a file."""

    stale: list[str] = field(default_factory=list)
    """A file that stands over one that began after its end and was acknowledged."""

    mistaken: list[str] = field(default_factory=list)
    """A handler read other bytes than those of its event."""

    def broken(self) -> dict[str, list[str]]:
        """The lists that are not empty, by name."""
        lists = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: tags for name, tags in lists.items() if tags}


def judge(
    attempts: Iterable[UploadAttempt],
    stored: Mapping[str, bytes],
    *handlers: Mapping[str, str | None],
) -> Verdict:
    """Compare what clients were answered with what is stored and what has run.

    `stored` maps names to bytes. Each of `handlers` maps the tags of its complete runs to the digest
    that it saw, None where it saw none.
    """
    verdict, attempts = Verdict(), list(attempts)
    by_tag = {attempt.tag: attempt for attempt in attempts}
    by_content = {(attempt.name, attempt.digest): attempt for attempt in attempts}
    winners = {
        name: by_content.get((name, hashlib.sha256(content).hexdigest()))
        for name, content in stored.items()
    }
    for attempt in attempts:
        ran = [attempt.tag in runs for runs in handlers]
        is_stored = winners.get(attempt.name) is attempt
        if attempt.acknowledged:
            if not all(ran):
                verdict.missing.append(attempt.tag)
            if attempt.name not in stored:
                verdict.torn.append(attempt.name)
        elif attempt.status is not None:
            if is_stored or any(ran):
                verdict.visible.append(attempt.tag)
        elif (is_stored or any(ran)) and not all([*ran, attempt.name in stored]):
            verdict.partial.append(attempt.tag)
    for name, winner in winners.items():
        if winner is None:
            verdict.torn.append(name)
        elif any(a.acknowledged and a.name == name and a.began > winner.ended for a in attempts):
            verdict.stale.append(winner.tag)
    for runs in handlers:
        verdict.mistaken += [
            tag
            for tag, digest in runs.items()
            if tag not in by_tag or digest not in {None, by_tag[tag].digest}
        ]
    return verdict
