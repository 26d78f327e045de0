"""What is refused while `--auth` is only the default: proxies, and names that are not ours."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.local_only import LocalOnly
from gateway.domain.proxy_headers import USUAL_NAMES, shows_proxy
from gateway.errors import Refusal
from gateway.settings import Settings


def local_only(**settings: Any) -> LocalOnly:
    return LocalOnly(Settings.model_validate(settings))


def refuses_host(check: LocalOnly, host: str) -> bool:
    try:
        check.refuse_foreign_host(CIMultiDict(Host=host))
    except Refusal as refusal:
        return refusal.status == 421 and "--hosts" in refusal.message
    return False


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-FORWARDED-SOMETHING", "Via",
        "X-Real-IP", "CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Amzn-Trace-Id", "CDN-Loop",
        "Fly-Client-IP", "X-Envoy-External-Address", "X-Original-URL", "X-Original-Host",
        "X-Client-IP", "X-Rewrite-URL", "Fastly-Client-IP", "X-Azure-ClientIP", "X-ARR-LOG-ID",
    ],
)  # fmt: skip
def test_a_request_that_shows_a_proxy_is_refused_until_auth_is_said(name: str) -> None:
    through_proxy = CIMultiDict({"Host": "x", name: "1.2.3.4"})
    with pytest.raises(Refusal, match="--auth token") as caught:
        local_only().refuse_proxy(through_proxy)
    assert (caught.value.status, "1.2.3.4" in caught.value.message) == (403, False)
    local_only(auth="none", auth_explicit=True).refuse_proxy(through_proxy)


def test_headers_of_ordinary_clients_show_no_proxy() -> None:
    plain = {"Host": "x", "X-Real-Name": "y", "Origin": "z", "X-Request-Id": "1", "Traceparent": "00-1",
             "X-Original-Filename": "a.png", "X-Forwarded-File": "a.png"}  # fmt: skip
    local_only().refuse_proxy(CIMultiDict(plain))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST", "localhost.", "app.localhost:1", "127.0.0.1:8080",
     "127.9.9.9", "[::1]:8080", "[::1]", "10.0.0.7", "192.0.2.1:80", "[2001:db8::1]:8080", ""],
)  # fmt: skip
def test_addresses_and_the_names_of_this_machine_are_ours(host: str) -> None:
    assert not refuses_host(local_only(), host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "test",
     "notlocalhost", "0x7f.1", "127.1", "[evil]", "127.0.0.1.:8080x.example"],
)  # fmt: skip
def test_foreign_names_are_refused_until_auth_is_said(host: str) -> None:
    assert refuses_host(local_only(), host)
    assert not refuses_host(local_only(auth="none", auth_explicit=True), host)


def test_names_of_the_settings_are_ours() -> None:
    check = local_only(
        hosts=["Files.lan"], advertise="node-1:8080", public_url="https://files.example.org/base"
    )
    for host in ("files.lan", "FILES.LAN:8080", "node-1:8080", "files.example.org"):
        assert not refuses_host(check, host), host
    assert refuses_host(check, "other.lan")


def test_a_list_of_names_counts_whatever_auth_says() -> None:
    check = local_only(hosts=["files.lan"], auth="none", auth_explicit=True)
    assert refuses_host(check, "evil.example")
    assert not refuses_host(check, "files.lan")
    assert not refuses_host(check, "127.0.0.1:8080")


def test_no_usual_name_shows_a_proxy() -> None:
    assert not [name for name in USUAL_NAMES if shows_proxy(name.lower())]
