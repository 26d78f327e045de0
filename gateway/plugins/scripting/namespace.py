"""The names that a script finds, and the services behind them.

One rule: a script reaches the gateway through these names only; all of them are documented. May
import `errors`, `model`, `records` and this room.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Final

import aiofiles
import aiohttp
from yarl import URL

from gateway.plugins.scripting.callout import Callout, HTTPError, nobody
from gateway.plugins.scripting.configs import Configs
from gateway.plugins.scripting.event import MU
from gateway.plugins.scripting.files import Files, FilesInMemory
from gateway.plugins.scripting.trace import MARK
from gateway.records import Collection, Records
from gateway.signing.credential import FindCredentials, TrustedCall

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def _nowhere() -> str:
    raise RuntimeError("this gateway has no address here: give callout() an endpoint")


SignUrl = Callable[..., Awaitable[str | dict[str, Any]]]
"""Makes a signed URL, or the form that a bucket takes a POST with
(`gateway.auth.links.SignedUrlFactory.sign_url`)."""


async def _stub_url(method: str, path: str, **terms: Any) -> str:
    """Stand for `sign_url` where nothing is served (`gateway check`)."""
    return f"http://gateway.invalid/-/objects{path}?X-Gateway-Signature=stub"


@dataclass(slots=True)
class Services:
    """What the gateway lends to scripts.

    `own_endpoint` returns `host:port` or a URL of this gateway, `credentials_for` how to call a gateway
    of this installation. `closers` run on the loop of each lane before it ends.
    """

    own_endpoint: Callable[[], str] = _nowhere
    files: Files = field(default_factory=FilesInMemory)
    records: Records = field(default_factory=Records)
    credentials_for: FindCredentials = nobody
    sign_url: SignUrl = _stub_url
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    callout: Callout = field(init=False)

    def __post_init__(self) -> None:
        # Both are looked up at each call: the port is known only after the start.
        def credentials_for(method: str, url: URL) -> TrustedCall | None:
            return self.credentials_for(method, url)

        self.callout = Callout(lambda: self.own_endpoint(), credentials_for)  # noqa: PLW0108


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What is special to one script: its names, its folder, its state, the configs it may read."""

    name: str
    module: str
    folder: str
    state: dict[str, Any]
    configs: Configs
    callout: Callable[..., Any]
    files: Files
    records: Callable[[str], Collection] = field(default_factory=Records)
    sign_url: SignUrl = _stub_url


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin is made with beside its document. `state` is its own and outlives reloads."""

    services: Services
    configs: Configs
    state: dict[str, Any]

    def for_script(self, name: str, folder: str) -> ScriptContext:
        """Return the context of a script of the plugin `name`, whose YAML file lies in `folder`."""
        return ScriptContext(
            name=name,
            module=f"plugin.{name}",
            folder=folder,
            state=self.state,
            configs=self.configs,
            callout=self.services.callout,
            files=self.services.files,
            records=self.services.records.__call__,  # scripts reach nothing else of it
            sign_url=self.services.sign_url,
        )


def run_script(code: CodeType, around: ScriptContext) -> dict[str, Any]:
    """Run a script's top-level code in a new namespace and return that namespace."""
    names = _names(around)
    exec(code, names)  # noqa: S102 - plugins are the operator's own code, trusted like the gateway's
    return names


def _names(around: ScriptContext) -> dict[str, Any]:
    logger = logging.getLogger(f"gateway.plugin.{around.name}")
    return {
        "__name__": around.module,
        MARK: around.folder,
        **{method: method for method in METHODS},
        "MU": MU,
        "HTTPError": HTTPError,
        "aiofiles": aiofiles,
        "aiohttp": aiohttp,
        "asyncio": asyncio,
        "callout": around.callout,
        "files": around.files,
        "get_service_config": _config_reader(around.configs),
        "json": json,
        "logger": logger,
        "print": _printer(logger),
        "records": around.records,
        "sign_url": around.sign_url,
        "state": around.state,
        "time": time,
    }


def _config_reader(configs: Configs) -> Callable[..., Any]:
    async def get_service_config(name: str, mu_conversion: bool = False) -> dict[str, Any]:
        """Return the mapping of the Config plugin `name`."""
        return configs.get(name, mu_conversion)

    return get_service_config


def _printer(logger: logging.Logger) -> Callable[..., None]:
    def print_to_log(*values: Any, sep: str | None = " ", end: str = "", **how: Any) -> None:
        """Write to the plugin's log what `print` would write to the terminal."""
        if how.get("file") is not None:
            builtins.print(*values, sep=sep, end=end or "\n", **how)
            return
        text = io.StringIO()
        builtins.print(*values, sep=sep, end=end, file=text)
        logger.info("%s", text.getvalue().rstrip("\n"))

    return print_to_log
