"""Doctor: what surrounds the gateway: SQLite, records, plugins, who may upload, proxies, a server.

The rule: the settings are believed, their combination is judged; the network is asked only for this
gateway's own health page.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final

from gateway.cli.doctor.finding import Finding
from gateway.domain.addresses import connectable_host, host_port
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.settings import Settings, exposure_error, is_loopback

OLDEST_SQLITE: Final = (3, 35, 0)
"""The first that knows RETURNING (sqlite.org/lang_returning.html)."""

FIXED_SQLITE: Final = (3, 51, 3)
"""Before it, several processes on one journal could lose commits (the WAL-reset bug)."""

_WAIT_SECONDS: Final = 3.0


def database(settings: Settings) -> Iterator[Finding]:
    """SQLite is new enough for the journal."""
    del settings
    what = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        yield Finding("FAIL", what, "the journal needs 3.35 or newer: use a newer Python or system")
    elif sqlite3.sqlite_version_info < FIXED_SQLITE:
        yield Finding("ok", f"{what}; never open the journal beside the server (fixed in 3.51.3)")
    else:
        yield Finding("ok", what)


def records(settings: Settings) -> Iterator[Finding]:
    """The records can be reached, and by all who need them. A file is made by the first record only."""
    from gateway.records import FILE, open_records

    in_file = settings.records.get_secret_value() == "file"
    if in_file and not (settings.state / FILE).exists():
        yield Finding("ok", "no records yet; the first one makes their file")
        return
    kept = open_records(settings)
    try:
        yield Finding("ok", f"records are {asyncio.run(kept.check())}")
    except RecordsUnavailable as fault:
        yield Finding("FAIL", str(fault), "handlers fail until then: see docs/how-to/records.md")
    finally:
        kept.close()
    if in_file and (settings.peers or settings.events != "journal"):
        advice = "--records postgresql://... gives all gateways and workers the same ones"
        yield Finding(
            "warn", "the records are a file of this machine, which other machines lack", advice
        )


def plugins(settings: Settings) -> Iterator[Finding]:
    """Every plugin is valid and compiles; their tests are left to `gateway check`."""
    from gateway.endpoints.routing.plugin import routing_kind
    from gateway.plugins import KINDS, Plugins
    from gateway.plugins.scripting import Services
    from gateway.plugins.secrets import secret_keys

    if not settings.plugins:
        yield Finding("ok", "no plugins", "name folders with --plugins")
        return
    issuer = settings.jwt_issuer is not None
    kinds = (*KINDS, routing_kind(settings.file_upload_api_path, issuer=issuer))
    loaded = Plugins(settings.plugins, Services(), kinds, lambda: secret_keys(settings))
    try:
        loaded.load()
    except ConfigError as error:
        for line in str(error).splitlines():
            yield Finding("FAIL", f"plugin: {line}", "`gateway check` tells more")
    else:
        yield from (Finding("ok", f"plugin: {line}") for line in loaded.describe())
    finally:
        loaded.close()


def authorization(settings: Settings) -> Iterator[Finding]:
    """The address and the authorization fit together, and tokens do not travel in the clear."""
    open_to_others = not is_loopback(settings.host)
    what = f"address {settings.host}, authorization {settings.auth}"
    if danger := exposure_error(settings):
        yield Finding("FAIL", what, danger)
    elif open_to_others and settings.auth == "none":
        yield Finding(
            "warn", what, "everyone who reaches this address may upload, unless a plugin refuses"
        )
    elif open_to_others and settings.tls_cert is None and not settings.trusted_proxies:
        yield Finding(
            "warn", what, "tokens travel unencrypted: --tls-cert and --tls-key, or a proxy with TLS"
        )
    else:
        yield Finding("ok", what)
    if settings.auth == "jwt" and not (settings.tokens or settings.jwt_operators):
        advice = "list a token, or name the operators' groups with --jwt-operators"
        yield Finding("warn", "nobody may read /-/metrics and the other pages over the network", advice)
    if settings.tokens and settings.auth == "none":
        advice = "say `auth: token`, unless a plugin decides by the principal"
        yield Finding("warn", "tokens are listed but the authorization is none", advice)


def proxy(settings: Settings) -> Iterator[Finding]:
    """A proxy in front is known here: else its requests are refused or carry the wrong address."""
    if settings.public_url is None and not settings.trusted_proxies:
        advice = (
            "" if settings.auth_explicit else "behind one, every request is refused until --auth is said"
        )
        yield Finding("ok", "no proxy in front, as far as the settings tell", advice)
        return
    if not settings.auth_explicit:
        advice = (
            "what comes through it is refused (403): say --auth token, or --auth none if you mean it"
        )
        yield Finding("FAIL", "a proxy is in front, but --auth is only the default", advice)
    if not settings.trusted_proxies:
        advice = "name its address in --trusted-proxies, else every client looks like the proxy"
        yield Finding("warn", "--public-url is set, but no proxy is trusted", advice)
    elif settings.public_url is None:
        advice = "say --public-url, else links in answers name this machine"
        yield Finding("warn", "proxies are trusted, but there is no public URL", advice)
    elif settings.auth_explicit:
        yield Finding("ok", "a proxy is in front, trusted, and the public URL is known")


def server(settings: Settings) -> Iterator[Finding]:
    """Something answers at the address: is it a gateway, and is it well?"""
    if settings.port == 0:
        yield Finding("ok", "port 0: picked anew at each start")
        return
    scheme = "https" if settings.tls_cert else "http"
    url = f"{scheme}://{host_port(connectable_host(settings.host), settings.port)}/-/health"
    try:
        status = _status(url)
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
        advice = "something listens there that is no gateway: choose another --port"
        yield Finding("warn", f"{url}: {type(error).__name__}", advice)
    else:
        yield Finding("ok", f"a server answers {status} at {url}")


def _status(url: str) -> int:
    """Ask for `url` past any configured proxy; the certificate may name another host than we use."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    with opener.open(url, timeout=_WAIT_SECONDS) as answer:
        json.loads(answer.read(65536))
        return int(answer.status)
