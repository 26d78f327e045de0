"""What a route may say of its upstreams, and how its faults are told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.endpoints.routing.proxy.tls import system_context, tls_of
from gateway.plugins import PluginErrors
from tests.support.routing.authority import Authority
from tests.support.routing.scripted import find, load

HEAD = "proxy: {path: /a}\n"


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(PluginErrors) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def fault(folder: Path, text: str) -> str:
    [line] = faults(folder, text)
    return line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("upstreams: [a, b, a]", "0.yaml:2: a is listed twice: give it a `weight` instead"),
        ("upstreams: [a, 'A:80']", "0.yaml:2: A:80 is listed twice"),
        (
            "target: {scheme: https}\nupstreams:\n- a\n- host: a:443\n  weight: 2",
            "0.yaml:5: a:443 is listed twice",
        ),
        ("upstreams: ['[::1]', '[0:0::1]']", "0.yaml:2: [0:0::1] is listed twice"),
        ("upstreams: ['[:::]']", "0.yaml:2: an upstream is host or host:port"),
        ("upstreams: ['a:0']", "0.yaml:2: an upstream is host or host:port"),
        ("upstreams: ['a:65536']", "0.yaml:2: an upstream is host or host:port"),
        (
            "upstreams: []\nhealth: {path: /h}",
            "0.yaml:3: `health` is about upstreams, and this route has none: remove it",
        ),
        ("upstreams: []\npassive: {failures: 1}", "0.yaml:3: `passive` is about upstreams"),
        ("upstreams: [a]\nhealth: {path: '/a b'}", "0.yaml:3: `health.path` is a path and a query"),
        ("upstreams: [a]\nhealth: {path: '/a#b'}", "0.yaml:3: `health.path` is a path and a query"),
        ("upstreams: [a]\nhealth: {path: 'a'}", "0.yaml:3: `health.path`"),
        ("upstreams: [a]\nhealth: {path: /a, expect: [200, 100]}", "0.yaml:3: no response ends with"),
        ("upstreams: [a]\nhealth: {path: /a, timeout: 61}", "0.yaml:3: a probe lasts 60 seconds"),
        ("upstreams: [{host: a, weight: 0}]", "0.yaml:2: `upstreams.0.weight`"),
        ("upstreams: [a]\npassive: {statuses: [404]}", "0.yaml:3: `passive.statuses.0`"),
        ("upstreams: [a]\nupstream_tls: {ca: ca.pem}", "0.yaml:3: `upstream_tls` needs TLS"),
    ],
)
def test_faults_are_told_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    Authority(tmp_path)
    assert fault(tmp_path, f"{HEAD}{text}\n").startswith(told)


def test_all_keys_are_understood(tmp_path: Path) -> None:
    text = """
    upstreams: [one, {host: two, weight: 3}]
    health: {path: /health?x=1, every: 2s, expect: 204, timeout: 500ms}
    passive: {failures: 1, statuses: [502, 503], aside: 1m}
    limits: {in_flight: 5, total: 1m, body: 1M}
    """
    made = find(load(tmp_path, HEAD + text.replace("\n    ", "\n")), "/a", "GET").route
    assert (made.upstreams, made.weights) == (("one", "two"), (1, 3))
    assert made.health is not None
    assert (made.health.path, made.health.every, made.health.timeout) == ("/health?x=1", 2, 0.5)
    assert made.health.expect == {204}
    assert (made.passive.failures, made.passive.aside) == (1, 60)
    assert made.passive.statuses == {502, 503}
    assert (made.limits.in_flight, made.limits.total, made.limits.body) == (5, 60, 1 << 20)


# -- upstream_tls

TLS = f"{HEAD}upstreams: [a]\ntarget: {{scheme: https}}\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ("{}", "`upstream_tls` names no file: add `ca` or `cert`, or remove it"),
        ("{ca: none.pem}", "none.pem cannot be read: No such file or directory"),
        ("{ca: .}", ". cannot be read: Is a directory"),
        ("{ca: client.key}", "client.key has no certificates that can be used (NO_CERTIFICATE"),
        ("{cert: none.pem}", "none.pem cannot be read: No such file or directory"),
        ("{cert: client.pem}", "the certificate and its key cannot be used"),
        ("{cert: client.pem, key: none.key}", "none.key cannot be read: No such file or directory"),
        ("{cert: client.pem, key: other.key}", "the certificate and its key cannot be used (KEY_VALUES"),
        ("{cert: client.pem, key: locked.key}", "the certificate and its key cannot be used ("),
        ("{key: client.key}", "a `key` needs its certificate: add `cert`"),
    ],
)
def test_files_that_cannot_be_used_are_faults_of_the_plugin(
    tmp_path: Path, files: str, told: str
) -> None:
    authority = Authority(tmp_path)
    authority.issue("gateway", "client")
    authority.issue("gateway", "other")
    lock = "openssl ec -aes128 -passout pass:secret -in client.key -out locked.key"
    subprocess.run(lock.split(), cwd=tmp_path, check=True, capture_output=True)
    line = fault(tmp_path, f"{TLS}upstream_tls: {files}\n")
    place, _, message = line.partition(": ")
    assert place == "0.yaml:4"
    assert message.replace(str(tmp_path), ".").removeprefix("./").startswith(told)


def test_each_load_has_a_context_of_its_own_and_other_routes_that_of_the_system(tmp_path: Path) -> None:
    Authority(tmp_path)
    text = f"{TLS}upstream_tls: {{ca: ca.pem}}\n"
    first, second = (find(load(tmp_path, text), "/a", "GET").route for _ in range(2))
    assert first.upstream_tls == second.upstream_tls
    assert tls_of(first) is not tls_of(second)
    assert len(tls_of(first).get_ca_certs()) == 1
    plain = find(load(tmp_path, TLS), "/a", "GET").route
    assert tls_of(plain) is system_context()
