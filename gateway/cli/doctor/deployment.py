"""Checks of SQLite, records, plugins, authorization, token issuer, proxies and the running server."""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.cli.doctor.finding import Finding
from gateway.domain.addresses import connectable_host, host_port
from gateway.domain.model import UPLOADING
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.settings import Settings, exposure_error, is_loopback

MIN_SQLITE: Final = (3, 35, 0)
"""The first version with RETURNING (sqlite.org/lang_returning.html)."""

SAFE_SQLITE: Final = (3, 51, 3)
"""Earlier versions can lose commits when several processes open one journal (the WAL-reset bug)."""

_HEALTH_TIMEOUT: Final = 3.0
"""Seconds."""

_MAX_ANSWER_BYTES: Final = 65_536


def database(settings: Settings) -> Iterator[Finding]:
    """SQLite is recent enough for the journal."""
    del settings
    version = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < MIN_SQLITE:
        yield Finding("FAIL", version, "the journal needs 3.35 or newer: use a newer Python or system")
    elif sqlite3.sqlite_version_info < SAFE_SQLITE:
        yield Finding("ok", f"{version}; never open the journal beside the server (fixed in 3.51.3)")
    else:
        yield Finding("ok", version)


def records(settings: Settings) -> Iterator[Finding]:
    """Records are available on all machines that need them. The first record creates their file."""
    from gateway.records.collection import FILE, open_records

    in_file = settings.records.get_secret_value() == "file"
    if in_file and not (settings.state / FILE).exists():
        yield Finding("ok", "no records yet; the first one creates their file")
        return
    store = open_records(settings)
    try:
        yield Finding("ok", f"records are {asyncio.run(store.check())}")
    except RecordsUnavailable as error:
        yield Finding("FAIL", str(error), "handlers fail until then: see docs/how-to/records.md")
    finally:
        store.close()
    if in_file and (settings.peers or settings.events != "journal"):
        advice = "share them with all gateways and workers: --records postgresql://..."
        yield Finding(
            "warn", "records are a file of this machine, which other machines do not have", advice
        )


def plugins(settings: Settings) -> Iterator[Finding]:
    """Every plugin is valid and compiles. `gateway check` also runs their tests."""
    from gateway.endpoints.routing.loading.plugin import routing_kind
    from gateway.plugins import KINDS, Plugins
    from gateway.plugins.scripting.namespace import Services
    from gateway.plugins.secrets import secret_keys
    from gateway.plugins.shared_names import shared_names_warning

    if not settings.plugins:
        yield Finding("ok", "no plugins", "name folders with --plugins")
    issuer = settings.jwt_issuer is not None
    kinds = (*KINDS, routing_kind(settings.file_upload_api_path, issuer=issuer))
    loaded = Plugins(settings.plugins, Services(), kinds, lambda: secret_keys(settings))
    try:
        loaded.load()
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("FAIL", f"plugin: {line}", "see `gateway check`")
    else:
        yield from (Finding("ok", f"plugin: {line}") for line in loaded.describe())
        handlers = loaded.current.handlers[UPLOADING]
        if warning := shared_names_warning(settings.upload_template, handlers):
            problem, advice = warning.split(": ", 1)
            yield Finding("warn", problem, advice)
    finally:
        loaded.close()


def authorization(settings: Settings) -> Iterator[Finding]:
    """The authorization protects the address, and tokens are encrypted in transit."""
    reachable = not is_loopback(settings.host)
    summary = f"address {settings.host}, authorization {settings.auth}"
    if exposure := exposure_error(settings):
        yield Finding("FAIL", summary, exposure)
    elif reachable and settings.auth == "none":
        yield Finding(
            "warn", summary, "everyone who reaches this address may upload, unless a plugin refuses"
        )
    elif reachable and settings.tls_cert is None and not settings.trusted_proxies:
        yield Finding(
            "warn",
            summary,
            "tokens are sent unencrypted: set --tls-cert and --tls-key, or use a proxy with TLS",
        )
    else:
        yield Finding("ok", summary)
    if settings.auth == "jwt" and not (settings.tokens or settings.jwt_operators):
        advice = "add a token, or the operators' groups with --jwt-operators"
        yield Finding("warn", "no user can read /-/metrics and the other pages over the network", advice)
    if settings.tokens and settings.auth == "none":
        advice = "set `auth: token`, unless a plugin decides by the principal"
        yield Finding("warn", "tokens are set but the authorization is none", advice)


def issuer(settings: Settings) -> Iterator[Finding]:
    """The issuer's keys can be fetched, and over HTTPS."""
    name = settings.jwt_issuer
    if name is None:
        return
    url = urlsplit(settings.jwt_jwks_url or name)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        advice = "an attacker on the network can replace them: use https"
        yield Finding("warn", f"the keys of {name} come unencrypted", advice)
    yield from asyncio.run(_fetch_keys(settings))


async def _fetch_keys(settings: Settings) -> list[Finding]:
    from gateway.auth.jwt.issuer import Issuer, IssuerError

    try:
        async with Issuer(settings) as provider:
            _, keys, seconds = await provider.fetch()
    except IssuerError as error:
        advice = "until it answers, tokens get 503: check --jwt-issuer and --jwt-jwks-url"
        return [Finding("FAIL", f"issuer: {error}", advice)]
    usable = sorted({name for key in keys.keys for name in key.algorithms})
    summary = f"issuer {settings.jwt_issuer}: {len(keys.keys)} keys for {', '.join(usable)}"
    return [
        Finding("ok", f"{summary}, fetched again after {seconds:g} s"),
        *(Finding("warn", f"issuer: {reason}", "this key is ignored") for reason in keys.skipped),
    ]


def proxy(settings: Settings) -> Iterator[Finding]:
    """Settings name a proxy in front: otherwise its requests are refused or have the wrong address."""
    if settings.public_url is None and not settings.trusted_proxies:
        advice = "" if settings.auth_explicit else "behind one, requests are refused until --auth is set"
        yield Finding("ok", "no proxy in front, according to the settings", advice)
        return
    if not settings.auth_explicit:
        advice = "its requests are refused (403): set --auth token, or --auth none if anyone may upload"
        yield Finding("FAIL", "a proxy is in front, but --auth is not set", advice)
    if not settings.trusted_proxies:
        advice = "add its address to --trusted-proxies, else every client has the address of the proxy"
        yield Finding("warn", "--public-url is set, but no proxy is trusted", advice)
    elif settings.public_url is None:
        advice = "set --public-url, else links in responses name this machine"
        yield Finding("warn", "proxies are trusted, but --public-url is not set", advice)
    elif settings.auth_explicit:
        yield Finding("ok", "a trusted proxy is in front, and --public-url is set")


def server(settings: Settings) -> Iterator[Finding]:
    """A server that answers at the address is a healthy gateway."""
    if settings.port == 0:
        yield Finding("ok", "port 0: a free one is picked at each start")
        return
    scheme = "https" if settings.tls_cert else "http"
    base = f"{scheme}://{host_port(connectable_host(settings.host), settings.port)}"
    url = f"{base}/-/health"
    try:
        status, _ = _fetch(url)
    except urllib.error.HTTPError as error:
        with error:
            advice = "not a gateway? choose another --port"
            yield Finding("warn", f"{url} answers {error.code}", advice)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ConnectionRefusedError):
            yield Finding("ok", f"no server runs at {settings.host}:{settings.port}; the port is free")
        else:
            yield Finding("warn", f"{url}: {error.reason}", "is something else listening there?")
    except (OSError, ValueError, http.client.HTTPException) as error:
        advice = "another program listens there: choose another --port"
        yield Finding("warn", f"{url}: {type(error).__name__}", advice)
    else:
        yield Finding("ok", f"a server answers {status} at {url}")
        yield from _readiness(f"{base}/-/ready")


def _readiness(url: str) -> Iterator[Finding]:
    """Tell what the running gateway lacks."""
    try:
        try:
            _, answer = _fetch(url)
        except urllib.error.HTTPError as error:
            with error:
                answer = json.loads(error.read(_MAX_ANSWER_BYTES))
    except (OSError, ValueError, http.client.HTTPException) as error:
        yield Finding("warn", f"{url}: {error}", "a process may hang: ask again")
        return
    reasons = answer.get("reasons", {})
    for name, good in answer.get("checks", {}).items():
        if not good:
            advice = reasons.get(name, "look at the log of the gateway")
            yield Finding("FAIL", f"the running gateway is not ready: {name}", advice)


def _fetch(url: str) -> tuple[int, Any]:
    """Return status and JSON of `url`, without any proxy; the certificate may name another host."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=_HEALTH_TIMEOUT) as response:
        return int(response.status), json.loads(response.read(_MAX_ANSWER_BYTES))
