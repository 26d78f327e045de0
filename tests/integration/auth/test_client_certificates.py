"""`--tls-client-ca`: who gets a connection, and what the certificate is good for."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.errors import ConfigError
from gateway.http.sockets import tls_context
from gateway.server.app import Gateway
from gateway.settings import load
from tests.conftest import StartGateway, StartProcess
from tests.support.certificates import Authority, Pair
from tests.support.harness import Curl, curl, wait_until, write_plugin
from tests.support.recorders import captured_log

pytestmark = pytest.mark.both_paths

ROUTES = """
- upstreams: []
  proxy: {path: /who, scheme: 'http:'}
  request_script: return request.principal
---
- upstreams: []
  proxy: {path: /token, scheme: 'http:', authorization: {auth: token}}
  request_script: return request.principal
"""


class Site:
    """Authorities, the server's certificate, and the settings that use them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "ours")
        self.foreign = Authority(folder, "foreign")
        self.server = self.authority.issue("server", "localhost", names=["localhost"], use="server")
        self.client_ca = folder / "client-ca.pem"
        shutil.copy(self.authority.file, self.client_ca)
        plugins = write_plugin(folder / "plugins", ROUTES)
        self.settings: dict[str, object] = {
            "tls_cert": self.server.cert,
            "tls_key": self.server.key,
            "tls_client_ca": str(self.client_ca),
            "plugins": [str(plugins)],
            "auth": "token",
            "tokens": [f"ci:{token_digest('secret')}"],
        }

    async def ask(self, url: str, pair: Pair | None, path: str, *more: str) -> Curl:
        """Ask a gateway with the certificate of a client."""
        shown = () if pair is None else ("--cert", pair.cert, "--key", pair.key)
        place = url.replace("127.0.0.1", "localhost")
        return await curl("--cacert", self.authority.file, *shown, *more, f"{place}{path}")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "tls")


@pytest.fixture
async def gateway(site: Site, start_gateway: StartGateway) -> Gateway:
    return await start_gateway(**site.settings)


async def test_the_common_name_is_the_principal(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", "device-7", names=["other.example"])
    with captured_log() as lines:
        stored = await site.ask(gateway.url, device, "/upload/a", "-T", "README.md")
        assert stored.status == 201
        who = await site.ask(gateway.url, device, "/who")
    assert json.loads(who.body) == {"name": "device-7", "kind": "certificate"}
    access = [line for line in lines if line["event"] == "request.answered"]
    assert [line["principal"] for line in access] == ["device-7", "device-7"]


async def test_without_a_common_name_the_first_alternative_name_is(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", None, names=["a.example", "b.example"])
    who = await site.ask(gateway.url, device, "/who")
    assert json.loads(who.body)["name"] == "a.example"


async def test_a_certificate_without_a_name_is_nobodys(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", None)
    assert (await site.ask(gateway.url, device, "/who")).status == 401


@pytest.mark.parametrize("version", ["1.2", "1.3"])
async def test_nobody_else_gets_an_answer(site: Site, gateway: Gateway, version: str) -> None:
    foreign = site.foreign.issue("foreign", "device-7")
    expired = site.authority.issue("expired", "device-7", days=-1)
    of_a_server = site.authority.issue("other", "device-7", use="server")
    for pair in (None, foreign, expired, of_a_server):
        for path in ("/-/health", "/who"):
            refused = await site.ask(
                gateway.url, pair, path, "--tls-max", version, "-H", "X-Auth-Token: secret"
            )
            # The handshake failed; with TLS 1.3 curl learns it from what comes behind its own part.
            assert (refused.status, refused.code in {35, 52, 55, 56}) == (0, True), refused


async def test_a_token_comes_first(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", "device-7")
    who = await site.ask(gateway.url, device, "/who", "-H", "X-Auth-Token: secret")
    assert json.loads(who.body) == {"name": "ci", "kind": "token"}


async def test_a_route_that_asks_for_a_token_takes_no_certificate(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", "device-7")
    assert (await site.ask(gateway.url, device, "/token")).status == 401
    done = await site.ask(gateway.url, device, "/token", "-H", "X-Auth-Token: secret")
    assert done.status == 200


async def test_operators_need_more_than_a_certificate(site: Site, gateway: Gateway) -> None:
    device = site.authority.issue("device", "device-7")
    assert (await site.ask(gateway.url, device, "/-/events")).status == 403
    done = await site.ask(gateway.url, device, "/-/events", "-H", "X-Auth-Token: secret")
    assert done.status == 200


async def test_a_foreign_page_does_nothing_with_the_certificate_of_a_browser(
    site: Site, gateway: Gateway
) -> None:
    device = site.authority.issue("device", "device-7")
    foreign = ("-H", "Sec-Fetch-Site: cross-site", "-H", "Origin: https://evil.example")
    for path, more in (("/upload/a", ["-T", "README.md"]), ("/who", ["-d", "x"])):
        assert (await site.ask(gateway.url, device, path, *more, *foreign)).status == 403
    assert (await site.ask(gateway.url, device, "/who", *foreign)).status == 200


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_reload_takes_other_authorities_and_forgets_the_former_ones(
    site: Site, gateway_process: StartProcess, processes: int
) -> None:
    flags = [
        f"--{name.replace('_', '-')}={value[0] if isinstance(value, list) else value}"
        for name, value in site.settings.items()
    ]
    gateway = gateway_process(*flags, f"--processes={processes}")
    ours = site.authority.issue("device", "device-7")
    theirs = site.foreign.issue("foreign", "device-8")
    assert (await site.ask(gateway.url, ours, "/who")).status == 200
    assert (await site.ask(gateway.url, theirs, "/who")).status == 0
    shutil.copy(site.foreign.file, site.client_ca)
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.log().count("reloaded: plugin set 2") == processes)
    for _ in range(4):
        assert (await site.ask(gateway.url, theirs, "/who")).status == 200
        assert (await site.ask(gateway.url, ours, "/who")).status == 0
    site.client_ca.write_text("nothing")
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.log().count("holds no certificate") >= processes)
    assert (await site.ask(gateway.url, theirs, "/who")).status == 200
    assert gateway.terminate() == 0


async def test_a_script_reaches_its_own_gateway_where_the_servers_certificate_is_accepted_too(
    site: Site, start_gateway: StartGateway
) -> None:
    both = site.authority.issue("both", "gateway", names=["localhost"], use="client server")
    gateway = await start_gateway(**{**site.settings, "tls_cert": both.cert, "tls_key": both.key})
    callout = gateway.resources.plugins.services.callout
    try:
        answer = await callout(None, "/-/events?limit=5", "get")
        assert (answer.code, answer.json()["deliveries"]) == (200, [])
    finally:
        await callout.close()


# -- settings


def test_the_file_needs_https(site: Site) -> None:
    with pytest.raises(ConfigError, match="--tls-client-ca: needs HTTPS"):
        load({"tls_client_ca": str(site.client_ca)}, {})


def test_a_file_that_is_missing_is_named(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"--tls-client-ca: .*cannot be read"):
        load({**site.settings, "plugins": [], "tls_client_ca": "/nowhere/ca.pem"}, {})


@pytest.mark.parametrize(
    "text", ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_certificates_is_named(site: Site, text: str) -> None:
    site.client_ca.write_text(text)
    settings = load({**site.settings, "plugins": []}, {})
    with pytest.raises(ConfigError, match="holds no certificate that can be used") as caught:
        tls_context(settings)
    assert str(site.client_ca) in str(caught.value)
