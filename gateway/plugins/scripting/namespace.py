"""The names that a script finds, and the services behind them.

A script reaches the gateway through these names only, and all of them are documented.
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
from typing import Any

import aiofiles
import aiohttp

from gateway.domain.grant import METHODS
from gateway.plugins.scripting.callout import Callout, HTTPError, no_credentials
from gateway.plugins.scripting.files import Files
from gateway.plugins.scripting.fixed_clock import FixedClock
from gateway.plugins.scripting.http_sessions import HttpSessions
from gateway.plugins.scripting.quotas import LeftOf, nothing_used, quota_function
from gateway.plugins.scripting.temporary_files import TemporaryFiles
from gateway.plugins.scripting.trace import MARK
from gateway.plugins.scripting.values import MU, Configs
from gateway.plugins.secrets import PluginSecrets
from gateway.records.collection import Records
from gateway.signing.keys import FindCredentials
from gateway.telemetry.logs import event

SignUrl = Callable[..., Awaitable[str | dict[str, Any]]]
"""Makes a signed URL, or the form of a POST to a bucket (`auth.links.SignedUrlFactory.sign_url`)."""


def _no_endpoint() -> str:
    raise RuntimeError("this gateway has no address here: give callout() an endpoint")


async def _stub_url(method: str, path: str, **terms: Any) -> str:
    """Stand in for `sign_url` in the tests of plugins."""
    return f"http://gateway.invalid/-/objects{path}?X-Gateway-Signature=stub"


@dataclass(slots=True)
class Services:
    """What the gateway provides for scripts.

    `own_endpoint` returns `host:port` or a URL of this gateway, `credentials_for` how to call a gateway
    of this installation. `closers` run on the loop of each executor before it ends. `clock` is that of a
    test, None for the real one.
    """

    own_endpoint: Callable[[], str] = _no_endpoint
    files: Files = field(default_factory=TemporaryFiles)
    records: Records = field(default_factory=Records)
    credentials_for: FindCredentials = no_credentials
    sign_url: SignUrl = _stub_url
    quota_left: LeftOf = nothing_used
    closers: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    sessions: HttpSessions = field(default_factory=HttpSessions)
    clock: FixedClock | None = None
    callout: Callout = field(init=False)

    def __post_init__(self) -> None:
        # Both are looked up at each call: the port is known only after the start.
        self.callout = Callout(
            lambda: self.own_endpoint(),  # noqa: PLW0108
            lambda method, url: self.credentials_for(method, url),  # noqa: PLW0108
            self.sessions,
        )


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin is made with beside its document. `state` is its own and outlives reloads."""

    services: Services
    configs: Configs
    state: dict[str, Any]
    secrets: PluginSecrets = field(default_factory=PluginSecrets)


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What surrounds one script: the name of its plugin, the folder of its file, and the rest."""

    name: str
    folder: str
    plugin: PluginContext


def run_script(code: CodeType, context: ScriptContext) -> dict[str, Any]:
    """Run a script's top-level code in a new namespace and return that namespace."""
    names = _names(context)
    exec(code, names)  # noqa: S102 - plugins are the operator's own code, trusted like the gateway's
    return names


def _names(context: ScriptContext) -> dict[str, Any]:
    logger = logging.getLogger(f"gateway.plugin.{context.name}")
    services = context.plugin.services
    clock = services.clock
    return {
        "__name__": f"plugin.{context.name}",
        **({} if clock is None else {"__builtins__": clock.builtins()}),
        MARK: context.folder,
        **{method: method for method in METHODS},
        "MU": MU,
        "HTTPError": HTTPError,
        "aiofiles": aiofiles,
        "aiohttp": aiohttp,
        "asyncio": asyncio,
        "callout": services.callout,
        "files": services.files,
        "get_service_config": _config_reader(context.plugin.configs),
        "json": json,
        "logger": logger,
        "print": _printer(logger),
        "quota": quota_function(services.quota_left),
        "records": services.records.__call__,  # scripts reach nothing else of it
        "sign_url": services.sign_url,
        "state": context.plugin.state,
        "time": time if clock is None else clock.modules["time"],
    }


def script_names() -> frozenset[str]:
    """Return the names that every script finds."""
    return frozenset(_names(ScriptContext("", "", PluginContext(Services(), Configs({}), {}))))


def _config_reader(configs: Configs) -> Callable[..., Any]:
    async def get_service_config(name: str, mu_conversion: bool = False) -> dict[str, Any]:
        """Return the mapping of the Config plugin `name`."""
        return configs.get(name, mu_conversion)

    return get_service_config


def _printer(logger: logging.Logger) -> Callable[..., None]:
    def print_to_log(*values: Any, sep: str | None = " ", end: str = "", **options: Any) -> None:
        """Write to the plugin's log what `print` would write to the terminal."""
        if options.get("file") is not None:
            builtins.print(*values, sep=sep, end=end or "\n", **options)
            return
        text = io.StringIO()
        builtins.print(*values, sep=sep, end=end, file=text)
        logger.info("%s", text.getvalue().rstrip("\n"), extra=event("script.printed"))

    return print_to_log
