"""Reads the project's pages as a person would: what they say is done, in a folder of its own.

How the pages are written:

- A `yaml` block begins with a comment that names its file. The reader saves it there; a plugin is
  loaded and its `tests:` are run, settings are loaded.
- A `sh` block is run by bash, in order, in the page's folder, which holds copies of README.md,
  plugins/ and packaging/. What a block exports stays exported.
- A line of it that begins with `gateway --` or `gateway serve` starts the page's server (an earlier
  one is stopped first); from then on `http://127.0.0.1:8080` in the page means that server.
- `http://127.0.0.1:8333` means a SeaweedFS that runs for the tests, with the keys that the page shows.
- A `text` or `json` block right behind a `sh` block is what that prints; `...` stands for anything.
- `console` blocks need another machine or a gigabyte: they are checked as text, not run.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.cli.check import check
from gateway.settings import load
from tests.support import PROJECT

SHOWN_URL: Final = "http://127.0.0.1:8080"
SHOWN_S3: Final = "http://127.0.0.1:8333"
SECONDS: Final = 30.0

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SERVES: Final = re.compile(r"gateway (serve\b|--(?!help|version))")
_NEEDS_QUIET: Final = re.compile(r"events|/-/uploads|/-/metrics")
_FILE_NAME: Final = re.compile(r"# ([\w./-]+\.ya?ml)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, the line it begins on, what stands before it."""

    language: str
    text: str
    line: int
    follows: str


def pages() -> list[Path]:
    """Every page that is written for readers."""
    return [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page. `follows` is the language of a block right above, else empty."""
    text = page.read_text(encoding="utf-8")
    parsed: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        near = not text[end : match.start()].strip() and parsed
        follows = parsed[-1].language if near else ""
        parsed.append(Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, follows))
        end = match.end()
    return parsed


def file_name(block: Block) -> str:
    """The file that a yaml block names in its first line."""
    match = _FILE_NAME.match(block.text)
    assert match, f"line {block.line}: the first line of a yaml block names its file: # folder/name.yaml"
    return match[1]


class PageRunner:
    """Does what a page says, in `folder`. A context manager: its server does not outlive it."""

    def __init__(self, folder: Path, s3_url: str = SHOWN_S3) -> None:
        self.folder = folder
        self._s3_url = s3_url
        self._server: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._url = SHOWN_URL
        self._printed = ""
        self._directory = folder
        shutil.copy(PROJECT / "README.md", folder)
        for name in ("plugins", "packaging"):
            shutil.copytree(PROJECT / name, folder / name, dirs_exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("UPLOAD_GATEWAY_")}
        self._environ = {**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        for group in self._groups:  # what a page leaves running does not outlive it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)

    def follow(self, block: Block) -> None:
        """Do what one block says; what cannot be done raises AssertionError with the block's line."""
        if block.language == "yaml":
            self._save(block)
        elif block.language == "sh":
            self._printed = "".join(self._do(step, block) for step in _steps(block.text))
        elif block.language in {"text", "json"} and block.follows == "sh":
            self._compare(block)

    def _save(self, block: Block) -> None:
        file = self.folder / file_name(block)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        if file.name == "gateway.yaml":
            load({"directory": str(self.folder), "config": str(file)}, {}, listening=False)
        else:
            assert check([file.parent]) == 0, f"line {block.line}: {file.name} does not pass its check"

    def _do(self, step: str, block: Block) -> str:
        if _SERVES.match(step):
            self._serve(step, block)
            return ""
        if _NEEDS_QUIET.search(step):
            self._wait_for_handlers()
        program = (
            f"set -euo pipefail\n[ ! -f .exported ] || . ./.exported\n{step}\nexport -p > .exported"
        )
        with subprocess.Popen(
            ["bash", "-c", program.replace(SHOWN_URL, self._url).replace(SHOWN_S3, self._s3_url)],
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as shell:
            self._groups.append(shell.pid)
            try:
                printed, errors = shell.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                raise
        assert shell.returncode == 0, f"line {block.line}: {step}\n{printed}{errors}"
        return printed

    def _compare(self, block: Block) -> None:
        wanted = block.text.replace(SHOWN_URL, self._url).replace(SHOWN_S3, self._s3_url).strip()
        pattern = ".*?".join(re.escape(piece) for piece in wanted.split("..."))
        printed = self._printed.strip()
        assert re.fullmatch(pattern, printed, re.DOTALL), (
            f"line {block.line}: printed was\n{printed}\nexpected\n{wanted}"
        )

    # -- the server

    def _serve(self, command: str, block: Block) -> None:
        self._stop()
        match = re.search(r"--directory (\S+)", command)
        self._directory = self.folder / (match[1] if match else ".")
        self._directory.mkdir(exist_ok=True)
        log = self.folder / "server.log"
        program = f"[ ! -f .exported ] || . ./.exported\nexec {command} --port 0"
        with log.open("wb") as errors:
            self._server = subprocess.Popen(
                ["bash", "-c", program],
                cwd=self.folder,
                env=self._environ,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._server.stdout is not None
        for line in self._server.stdout:
            if line.startswith(b"listening on "):
                self._url = line.decode().strip().removeprefix("listening on ")
                return
        raise AssertionError(f"line {block.line}: {command} did not start:\n{log.read_text()}")

    def _stop(self) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.communicate(timeout=SECONDS)
            self._server = None

    def _wait_for_handlers(self) -> None:
        """Wait until every delivery is done or dead."""
        # Relative, for a socket's path may have 108 bytes at the most.
        socket = ".gateway/owner-0.sock"
        if self._server is None or not (self._directory / socket).exists():
            return
        ask = ["curl", "-sS", "--unix-socket", socket, "http://owner/-/events?limit=1000"]
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            listed = subprocess.run(
                ask, cwd=self._directory, capture_output=True, text=True, check=True
            ).stdout
            if not re.search(r'"state": "(ready|running|delayed)"', listed):
                return
            time.sleep(0.05)  # the page is the only sign; its end is what is awaited
        raise AssertionError(f"handlers did not come to an end: {listed}")


def _steps(text: str) -> Iterator[str]:
    """Split a block: every line that serves stands alone, what lies between stays together."""
    together: list[str] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if _SERVES.match(line):
            if together:
                yield "\n".join(together)
            together = []
            yield line
        else:
            together.append(line)
    if together:
        yield "\n".join(together)
