"""Internal credentials: good for one request to one gateway for a minute, and for nothing else."""

from __future__ import annotations

import hashlib
import hmac
import stat
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from gateway.auth.authenticator import Auth
from gateway.auth.installation import KEY_FILE, Installation, audience, installation_keys
from gateway.errors import ConfigError
from gateway.settings import Settings, load
from gateway.signing.keys import CREDENTIAL_SKEW, CREDENTIAL_TTL, CredentialSigner
from gateway.telemetry.redaction import INTERNAL_HEADER
from tests.support.incoming import head_of

KEY = b"k" * 32
NOW = 1_750_000_000.0
WHO = "127.0.0.1:8080"


def signer(at: float = NOW, key: bytes = KEY) -> CredentialSigner:
    return CredentialSigner([key], lambda: at)


def settings(tmp_path: Path, **given: object) -> Settings:
    return load({"directory": str(tmp_path), **given}, {})


def installation(
    tmp_path: Path, bound: str = "127.0.0.1", port: int = 8080, key: bytes = KEY, **given: object
) -> Installation:
    return Installation(settings(tmp_path, **given), [key], (bound, port))


# -- the credential


def test_a_credential_is_an_hmac_over_audience_method_target_and_expiry() -> None:
    expiry = str(int(NOW) + 60)
    derived = hmac.digest(KEY, b"upload-gateway internal credential v1", hashlib.sha256)
    signed = "\n".join([WHO, "PUT", "/v1/x?a=%20b", expiry]).encode()
    mac = urlsafe_b64encode(hmac.digest(derived, signed, hashlib.sha256)).rstrip(b"=").decode()
    assert signer().credential(WHO, "PUT", "/v1/x?a=%20b") == f"v1.{expiry}.{mac}"


def test_it_is_good_for_its_own_request() -> None:
    made = signer().credential(WHO, "PUT", "/v1/x")
    assert signer().is_valid(made, [WHO], "PUT", "/v1/x")
    assert signer().is_valid(made, ["other:1", WHO], "PUT", "/v1/x")


@pytest.mark.parametrize(
    ("who", "method", "target"),
    [
        ("127.0.0.1:8081", "PUT", "/v1/x"),
        (WHO, "POST", "/v1/x"),
        (WHO, "PUT", "/v1/x?"),
        (WHO, "PUT", "/v1/%78"),
        (WHO, "PUT\n/v1", "x"),
    ],
)
def test_it_is_good_for_no_other(who: str, method: str, target: str) -> None:
    assert not signer().is_valid(signer().credential(WHO, "PUT", "/v1/x"), [who], method, target)
    assert not signer().is_valid(signer().credential(WHO, "PUT", "/v1/x"), [], "PUT", "/v1/x")


def test_another_key_makes_another_credential() -> None:
    made = signer(key=b"o" * 32).credential(WHO, "PUT", "/")
    assert not signer().is_valid(made, [WHO], "PUT", "/")


@pytest.mark.parametrize(
    ("later", "good"),
    [
        (0, True),
        (CREDENTIAL_TTL + CREDENTIAL_SKEW, True),
        (CREDENTIAL_TTL + CREDENTIAL_SKEW + 1, False),
        (-CREDENTIAL_SKEW, True),
        (-CREDENTIAL_SKEW - 1, False),
    ],
)
def test_it_lasts_a_minute_and_clocks_may_differ_a_little(later: int, good: bool) -> None:
    made = signer().credential(WHO, "GET", "/")
    assert signer(NOW + later).is_valid(made, [WHO], "GET", "/") is good


@given(st.text() | st.from_regex(r"v1\.\d+\.[\w-]{43}"))
def test_junk_is_no_credential_and_raises_nothing(junk: str) -> None:
    assert not signer().is_valid(junk, [WHO], "GET", "/")


def test_a_changed_expiry_or_mac_is_noticed() -> None:
    version, expiry, mac = signer().credential(WHO, "GET", "/").split(".")
    for changed in (
        f"{version}.{int(expiry) + 1}.{mac}",
        f"{version}.{expiry}.{mac[::-1]}",
        f"v2.{expiry}.{mac}",
        f"{version}.0{expiry}.{mac[:-1]}",
        f"{version}.{expiry}.{mac}\n",
    ):
        assert not signer().is_valid(changed, [WHO], "GET", "/")


def test_a_line_break_is_never_signed_and_a_short_key_never_used() -> None:
    with pytest.raises(ValueError, match="line break"):
        signer().credential(WHO, "GET", "/\nx")
    with pytest.raises(ValueError, match="at least 32 bytes"):
        CredentialSigner([KEY, b"k" * 31])
    assert "kkk" not in repr(signer())


# -- the key


def test_a_first_start_makes_a_key_for_the_owner_alone_and_keeps_it(tmp_path: Path) -> None:
    (tmp_path / ".gateway").mkdir()
    made = installation_keys(settings(tmp_path))
    file = tmp_path / ".gateway" / KEY_FILE
    assert [len(key) >= 32 for key in made] == [True]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert installation_keys(settings(tmp_path)) == made
    assert [one.name for one in file.parent.iterdir()] == [KEY_FILE]


def test_a_given_file_is_used_and_never_made(tmp_path: Path) -> None:
    file = tmp_path / "shared.key"
    given = settings(tmp_path, installation_key_file=str(file))
    with pytest.raises(ConfigError, match=r"shared.key: the key file cannot be read \(No such file"):
        installation_keys(given)
    file.write_bytes(KEY + b"\n")
    file.chmod(0o640)
    assert installation_keys(given) == (KEY,)


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [
        (b"k" * 31 + b"\n", 0o600, "key:1: .* at least 32 bytes: make one with `openssl rand"),
        (KEY + b"\n\n" + KEY, 0o600, "key:2: .* at least 32 bytes"),
        (b"", 0o600, "key:1: .* at least 32 bytes"),
        (KEY, 0o644, r"others may touch the key file \(mode 0644\): run `chmod 0640`"),
        (KEY, 0o660, "mode 0660"),
        (b"k" * 70_000, 0o600, "has at most 65536 bytes"),
    ],
)
def test_a_key_file_that_is_weak_or_open_to_others_is_refused(
    tmp_path: Path, content: bytes, mode: int, complaint: str
) -> None:
    file = tmp_path / "shared.key"
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(ConfigError, match=complaint) as caught:
        installation_keys(settings(tmp_path, installation_key_file=str(file)))
    assert str(caught.value).startswith(f"{file}:")
    assert "kkk" not in str(caught.value)


def test_several_keys_stand_one_a_line_and_the_first_signs(tmp_path: Path) -> None:
    file = tmp_path / "shared.key"
    given = settings(tmp_path, installation_key_file=str(file))
    new, old = b"n" * 32, b"o" * 40
    file.write_bytes(new + b"\r\n" + old + b"  \n")
    file.chmod(0o600)
    assert installation_keys(given) == (new, old)
    both = CredentialSigner([new, old], lambda: NOW)
    assert both.credential(WHO, "GET", "/") == signer(key=new).credential(WHO, "GET", "/")
    for key in (new, old):
        assert both.is_valid(signer(key=key).credential(WHO, "GET", "/"), [WHO], "GET", "/")
    assert not both.is_valid(signer().credential(WHO, "GET", "/"), [WHO], "GET", "/")


# -- who is called


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/x"),
        ("127.0.0.1", "http://localhost:8080/x"),
        ("127.0.0.1", "http://LOCALHOST.:8080/x"),
        ("127.0.0.1", "https://localhost:8080/x"),
        ("0.0.0.0", "http://127.0.0.1:8080/x"),
        ("0.0.0.0", "http://0.0.0.0:8080/x"),
        ("192.0.2.7", "http://192.0.2.7:8080/x"),
        ("127.0.0.1", "http://files.internal:80/x"),
        ("127.0.0.1", "http://files.internal/x"),
    ],
)
def test_a_call_to_ourselves_goes_to_our_own_socket_by_whatever_name(
    tmp_path: Path, host: str, url: str
) -> None:
    ours = installation(tmp_path, host, advertise="files.internal:80", auth="none")
    trusted = ours.credentials_for("GET", URL(url))
    assert trusted is not None
    assert str(trusted.url) == f"http://{audience(*ours.own)}/x"
    assert ours.verify_credential(trusted.credential, "GET", "/x")


def test_ipv6_is_called_in_brackets(tmp_path: Path) -> None:
    ours = installation(tmp_path, "::", 8080, host="::", auth="none")
    trusted = ours.credentials_for("GET", URL("http://localhost:8080/x"))
    assert trusted is not None
    assert str(trusted.url) == "http://[::1]:8080/x"
    assert ours.own_url == "http://[::1]:8080"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8081/"),
        ("127.0.0.1", "http://127.0.0.1/"),
        ("127.0.0.1", "http://127.0.0.2:8080/"),
        ("127.0.0.1", "http://127.0.0.1.example.org:8080/"),
        ("127.0.0.1", "http://127.0.0.1:8080@evil.example/"),
        ("192.0.2.7", "http://127.0.0.1:8080/"),
        ("192.0.2.7", "http://localhost:8080/"),
        ("127.0.0.1", "http://peer-2:9001/"),
    ],
)
def test_others_get_no_credential(tmp_path: Path, host: str, url: str) -> None:
    assert installation(tmp_path, host, peers=["peer-1:9001"]).credentials_for("GET", URL(url)) is None


def test_a_peer_knows_the_calls_of_its_peers_and_only_those_meant_for_it(tmp_path: Path) -> None:
    peers = ["node-a:8080", "node-b:8080", "node-c:8080"]  # the same list on every node
    a, b, c = (
        installation(tmp_path, "0.0.0.0", peers=peers, advertise=name, host="0.0.0.0", auth="none")
        for name in peers
    )
    trusted = a.credentials_for("POST", URL("http://Node-B:8080/v1/x?y=1"))
    assert trusted is not None
    assert (str(trusted.url), trusted.tls) == ("http://node-b:8080/v1/x?y=1", True)
    assert b.verify_credential(trusted.credential, "POST", "/v1/x?y=1")
    assert not c.verify_credential(trusted.credential, "POST", "/v1/x?y=1")
    assert not a.verify_credential(trusted.credential, "POST", "/v1/x?y=1")
    stranger = installation(tmp_path, "0.0.0.0", key=b"o" * 32, advertise="node-b:8080")
    assert not stranger.verify_credential(trusted.credential, "POST", "/v1/x?y=1")


def test_peers_need_a_name_for_a_gateway_that_listens_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--peers: .*--advertise HOST:PORT"):
        settings(tmp_path, host="0.0.0.0", auth="none", peers=["node-b:8080"])


# -- who asks


async def test_auth_takes_a_credential_as_a_principal_for_its_own_request_only(tmp_path: Path) -> None:
    ours = installation(tmp_path)
    auth = Auth(settings(tmp_path, auth="token"), (), ours)
    trusted = ours.credentials_for("GET", URL("http://127.0.0.1:8080/-/events"))
    assert trusted is not None
    headers = {INTERNAL_HEADER: trusted.credential}
    principal = (await auth.authenticate(head_of(headers, "GET", "/-/events"))).principal
    assert principal == {"name": "internal", "kind": "internal"}
    auth.authorize(principal)
    assert (await auth.authenticate(head_of(headers, "PUT", "/-/events"))).principal is None
    assert (await auth.authenticate(head_of(headers))).principal is None
    alone = Auth(settings(tmp_path), ())
    assert (await alone.authenticate(head_of(headers, "GET", "/-/events"))).principal is None
