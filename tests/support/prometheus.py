"""A real Prometheus that scrapes one gateway, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.harness import wait_until
from tests.support.ports import free_port

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ['{rules}']
scrape_configs:
- job_name: upload-gateway
  metrics_path: /-/metrics
  static_configs: [{{targets: ['{target}']}}]
"""


class Prometheus:
    """Asks the HTTP API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, path: str, **query: str) -> Any:
        """Return the data of an answer; None while there is no server, or for an error."""
        target = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        return await asyncio.to_thread(_read, target)

    async def query(self, expression: str) -> list[Any] | None:
        """Return the samples of a query; None for one that cannot be evaluated."""
        data = await self.ask("query", query=expression)
        return None if data is None else list(data["result"])


def _read(target: str) -> Any:
    try:
        with urllib.request.urlopen(target, timeout=10) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str, rules: Path) -> AsyncIterator[Prometheus]:
    """Start a Prometheus with these rules that scrapes `target` every second."""
    address, config = f"127.0.0.1:{free_port()}", folder / "prometheus.yml"
    config.write_text(CONFIG.format(rules=rules, target=target))
    log = folder / "prometheus.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}", "--log.level=warn",
            ],
            stderr=stderr,
        )  # fmt: skip
    try:
        server = Prometheus(f"http://{address}")
        await wait_until(lambda: server.ask("targets"))
        yield server
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
