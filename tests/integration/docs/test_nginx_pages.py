"""The nginx configurations of the pages: nginx takes them, and they do what the pages say."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.harness import curl, self_signed_certificate, write_plugin
from tests.support.ports import free_port
from tests.support.routing.api import api
from tests.support.routing.identity_nginx import identity_nginx
from tests.unit.docs.test_docs import shown

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")

PUBLIC = """
- upstreams: [{authority}]
  proxy: {{path: '/public/{{rest:path}}', scheme: 'http:', authorization: {{auth: none}}}}
  target: {{path: '/{{rest:path}}', scheme: 'http:'}}
"""


def adapted(page: str, number: int, folder: Path, port: int, gateway: str = "127.0.0.1:1") -> str:
    """Return a configuration of a page with files, ports and addresses that are here."""
    text = shown(PROJECT / "docs/how-to" / page, "nginx")[number].text
    cert, key = self_signed_certificate(folder)
    text = re.sub(r"ssl_certificate .*;", f"ssl_certificate {cert};", text)
    text = re.sub(r"ssl_certificate_key .*;", f"ssl_certificate_key {key};", text)
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    text = text.replace("127.0.0.1:8080", gateway).replace(
        "127.0.0.1:9091/api/authz/auth-request", "AUTH"
    )
    return text.replace("/var/cache/nginx", str(folder)).replace("/var/www", str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "page"
    (made / "site").mkdir(parents=True)
    (made / "site/index.html").write_text("a static page")
    return made


async def test_nginx_takes_the_configuration_for_grpc(folder: Path, tmp_path: Path) -> None:
    with identity_nginx(tmp_path / "nginx", "", adapted("leave-to-nginx.md", 1, folder, free_port())):
        pass


async def test_what_is_left_to_nginx_is_done_by_it(
    folder: Path, tmp_path: Path, start_gateway: StartGateway
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"number": len(upstream.asked), "filler": "x" * 2000})

    async with api(answer) as upstream:
        plugins = write_plugin(tmp_path / "plugins", PUBLIC.format(authority=upstream.authority))
        gateway = await start_gateway(
            auth="none", trusted_proxies="127.0.0.1", downloads=True, plugins=[str(plugins)]
        )
        port, address = free_port(), "{}:{}".format(*gateway.address)
        with identity_nginx(
            tmp_path / "nginx", "", adapted("leave-to-nginx.md", 0, folder, port, address)
        ):
            url, flags = f"https://localhost:{port}", ("--cacert", str(folder / "cert.pem"))
            page = (await curl(*flags, "-i", "--http2", f"{url}/site/index.html")).body
            assert page.startswith("HTTP/2 200")
            assert page.endswith("a static page")
            stored = await curl(*flags, "--http2", "-T", "README.md", f"{url}/upload/a.json")
            assert stored.status == 201
            bodies = {(await curl(*flags, f"{url}/public/x")).body for _ in range(3)}
            assert len(bodies) == len(upstream.asked) == 1
            assert upstream.asked[0].headers["X-Forwarded-Proto"] == "https"
            assert upstream.asked[0].headers["X-Forwarded-Host"] == f"localhost:{port}"
            packed = tmp_path / "packed"
            done = await curl(
                *flags, "-H", "Accept-Encoding: gzip", "-o", str(packed), f"{url}/public/x"
            )
            assert done.status == 200
            assert gzip.decompress(packed.read_bytes()).decode() in bodies


async def test_the_page_of_identity_proxies_signs_users_in(
    folder: Path, tmp_path: Path, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(
        auth="token",
        trusted_proxies="127.0.0.1",
        identity_headers="user=Remote-User,groups=Remote-Groups",
    )
    port, address = free_port(), "{}:{}".format(*gateway.address)
    text = adapted("behind-an-identity-proxy.md", 0, folder, port, address)
    with identity_nginx(tmp_path / "nginx", "", text):
        url, flags = f"https://localhost:{port}", ("--cacert", str(folder / "cert.pem"))
        spoofed = ("-H", "Remote-User: root")
        signed_in = await curl(
            *flags, *spoofed, "-b", "session=ann", "-T", "README.md", f"{url}/upload/a"
        )
        assert signed_in.status == 201
        assert (await curl(*flags, *spoofed, "-T", "README.md", f"{url}/upload/b")).status in {302, 401}
