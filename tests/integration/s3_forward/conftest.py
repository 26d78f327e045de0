"""Fixtures: the plugin, pointed at a server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import PROJECT
from tests.support.s3.servers import ACCESS_KEY, REGION, SECRET_KEY, S3Server

PLUGIN = PROJECT / "plugins" / "s3-forward"
RETRY = "retry: {attempts: 40, backoff: 5.0, max_backoff: 1800.0}"

Forwarder = Callable[..., Path]


@pytest.fixture
def forwarder(tmp_path: Path, bucket: str) -> Forwarder:
    """Copy the plugin: `forwarder(server, attempts=2, script="...", **config)`; return its folder."""

    def copy(server: S3Server, *, attempts: int = 40, script: str = "", **config: Any) -> Path:
        folder = tmp_path / "s3-forward"
        shutil.copytree(PLUGIN, folder)
        handler = folder / "s3Forward.yaml"
        text = handler.read_text()
        assert RETRY in text
        text = text.replace(RETRY, f"retry: {{attempts: {attempts}, backoff: 0.2, max_backoff: 0.5}}")
        if script:
            text = yaml.safe_dump({**yaml.safe_load(text), "script": script, "tests": []})
        handler.write_text(text)
        values = {
            "endpoint_url": server.url,
            "region": REGION,
            "bucket": bucket,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            **config,
        }
        (folder / "s3.yaml").write_text(yaml.safe_dump({"name": "s3", "config": values}))
        return folder

    return copy
