"""Parsers of settings: each turns a text into a value or raises `ValueError`.

The message of the error completes `--port: ...`. A value that is no text (set by a program) passes
through; the model validates it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.domain.addresses import Address
from gateway.domain.path_template import UploadPathTemplate
from gateway.domain.paths import check_path
from gateway.domain.units import parse_duration, parse_size
from gateway.errors import Refusal

_TRUTHS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?", re.ASCII)
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PLACE: Final = r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_ENGINE: Final = re.compile(rf"(?:nats|tls)://{_PLACE}(?:,{_PLACE})*", re.ASCII)
_BUCKET_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_BUCKET: Final = re.compile(rf"s3://({_BUCKET_NAME.pattern})(?:/(.*))?", re.ASCII)
_SUBJECT_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_HEX_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}")
SECRETS_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=", re.ASCII)
SIGNATURES: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Signatures of JSON Web Tokens with a public key (RFC 7518 section 3.1, RFC 8037)."""

_TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")

BUILTIN: Final = "builtin:"
"""Prefix of a plugin set that ships with the gateway, in place of a folder."""

_PACKAGE: Final = Path(__file__).resolve().parent.parent


class Bucket(NamedTuple):
    """A bucket of an S3 server and the prefix of our keys, without slashes at its ends."""

    name: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")

    def key(self, path: str) -> str:
        """Return the key of a storage path: `/a/b` is `prefix/a/b`."""
        plain = path.removeprefix("/")
        return f"{self.prefix}/{plain}" if self.prefix else plain


def size(value: object) -> object:
    """Bytes from `1048576`, `64M`, `64MiB` or `64MB`."""
    return parse_size(value) if isinstance(value, str) else value


def duration(value: object) -> object:
    """Seconds from `90`, `15m`, `12h` or `7d`."""
    return parse_duration(value) if isinstance(value, str) else value


def size_or_none(value: object) -> object:
    """Like `size`; `none` removes a limit."""
    return None if value == "none" else size(value)


def truth(value: object) -> object:
    """`true` or `false`, or another word of YAML 1.1 or of the environment for one of them."""
    if not isinstance(value, str):
        return value
    if value.lower() not in _TRUTHS:
        raise ValueError("must be true or false")
    return _TRUTHS[value.lower()]


def octal(value: object) -> object:
    """File permission bits from `0640`, `640` or `0o640`: always octal, never more than 0777."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"(0o)?0?[0-7]{3}", value):
        raise ValueError("must be octal permission bits such as 0640")
    return int(value, 8)


def host(value: object) -> object:
    """A host name or an IP address to listen on; brackets around IPv6 are removed."""
    if not isinstance(value, str):
        return value
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if not bare or any(c.isspace() or c in "/@[]" for c in bare):
        raise ValueError("must be a host name or an IP address, such as 127.0.0.1 or 0.0.0.0")
    return bare


def host_name(value: str) -> str:
    """A host name as it is in `Host`, without a port; in lower case."""
    if not _HOST_NAME.fullmatch(value):
        raise ValueError("must be a host name such as files.example.org, without a port")
    return value.lower().removesuffix(".")


def origin(value: str) -> str:
    """An origin as browsers send it (RFC 6454 section 6.2), or `*` for all."""
    if value != "*" and not _ORIGIN.fullmatch(value):
        raise ValueError('must be like https://app.example, without a path, or "*"')
    return value


def address(value: object) -> object:
    """`HOST:PORT`, with IPv6 in brackets (RFC 3986 section 3.2.2)."""
    if not isinstance(value, str):
        return value
    name, colon, port = value.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not colon or not 0 < number < 65536 or (":" in name and not name.startswith("[")):
        raise ValueError("must be HOST:PORT, such as files.example.org:443 or [2001:db8::1]:443")
    return Address(str(host(name)), number)


def network(value: object) -> object:
    """One address or a CIDR range (RFC 4632), such as 10.0.0.0/8."""
    if not isinstance(value, str):
        return value
    try:
        return ipaddress.ip_network(value.strip())
    except ValueError as error:
        hint = "" if "host bits" not in str(error) else "; the bits behind the prefix must be 0"
        raise ValueError(f"must be an address or a range such as 10.0.0.0/8{hint}") from None


def base_url(value: object) -> object:
    """`http(s)://host[:port][/prefix]` without credentials, query or trailing slash."""
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise ValueError("must look like https://files.example.org, without user, password or query")
    _ = parts.port  # out of range raises ValueError
    return value.rstrip("/")


def template(value: str) -> str:
    """An upload path template."""
    UploadPathTemplate.parse(value)
    return value


def header_name(value: str) -> str:
    """The name of a header (RFC 9110 section 5.1)."""
    if not _HEADER.fullmatch(value):
        raise ValueError("must be the name of a header, such as X-Customer-Key")
    return value


def hex_digest(value: str) -> str:
    """A SHA-256 as 64 hex digits, in lower case. The error never quotes the value."""
    if not _HEX_DIGEST.fullmatch(value):
        raise ValueError("must be 64 hex digits; `gateway token` prints a token and its line")
    return value.lower()


def secrets_key(value: SecretStr) -> SecretStr:
    """A key for `!secret` values: 32 bytes in URL-safe base64 (Fernet's form). Never quoted."""
    text = value.get_secret_value()
    if not SECRETS_KEY.fullmatch(text):
        raise ValueError("must be a key of 44 characters, as `gateway secrets keygen` prints it")
    return value


def token_name(value: str) -> str:
    """The principal of a token, as logs and events show it."""
    if not _TOKEN_NAME.fullmatch(value):
        raise ValueError("must be a name of letters, digits and . _ @ + - (at most 100)")
    return value


def token_fields(value: object) -> object:
    """A token given as `NAME:SHA256` on the command line or in the environment."""
    if not isinstance(value, str):
        return value
    name, _, digest = value.partition(":")
    return {"name": name, "sha256": digest}


def issuer(value: object) -> object:
    """An issuer (OpenID Connect Discovery 1.0 section 3) or the URL of its keys, unchanged."""
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    plain = not (parts.fragment or "@" in parts.netloc) and value.isascii() and value.isprintable()
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or " " in value:
        raise ValueError("must look like https://login.example.org/pool, without user or password")
    _ = parts.port  # out of range raises ValueError
    return value


def signature_algorithm(value: str) -> str:
    """A signature algorithm of JSON Web Tokens with a public key: no shared secret, not `none`."""
    if value not in SIGNATURES:
        raise ValueError(f"must be one of {', '.join(SIGNATURES)}: signatures by public keys only")
    return value


def engine(value: object) -> object:
    """The event queue: `journal`, or `nats://host[:port][,host...]` (`tls://` with TLS).

    Credentials are refused: the process list would show them.
    """
    if value == "journal" or not isinstance(value, str):
        return value
    if "@" in value:
        raise ValueError("must not contain a user or password: put them into --events-credentials FILE")
    if not _ENGINE.fullmatch(value):
        raise ValueError("must be journal, or look like nats://host:4222,host2:4222 (or tls://...)")
    return value


def subject_token(value: str) -> str:
    """The prefix of an installation's names in NATS: one token of a subject."""
    if not _SUBJECT_TOKEN.fullmatch(value):
        raise ValueError("must be 1 to 32 letters, digits, _ or -")
    return value


def storage(value: object) -> object:
    """Where uploads are stored: `file`, or `s3://bucket[/prefix]`.

    Credentials and endpoint come from the usual AWS_* variables.
    """
    if value == "file" or not isinstance(value, str):
        return value
    match = _BUCKET.fullmatch(value)
    if match is None:
        raise ValueError("must be file, or look like s3://bucket or s3://bucket/prefix")
    prefix = (match[2] or "").strip("/")
    try:
        return Bucket(match[1], "/".join(check_path(prefix)) if prefix else "")
    except Refusal as refusal:
        raise ValueError(f"{refusal.message.replace('path', 'prefix')} of the bucket") from None


def bucket_name(name: str) -> str:
    """The name of a bucket, without `s3://`."""
    if not _BUCKET_NAME.fullmatch(name):
        raise ValueError("must be the name of a bucket, without s3:// and without a prefix")
    return name


def record_store(value: SecretStr) -> SecretStr:
    """Where records are stored: `file`, or `postgresql://[user[:password]@]host[:port]/database`."""
    text = value.get_secret_value()
    if text == "file":
        return value
    parts = urlsplit(text)
    if parts.scheme not in {"postgresql", "postgres"} or len(parts.path) < 2:
        raise ValueError("must be file, or look like postgresql://user:password@host/database")
    _ = parts.port  # out of range raises ValueError
    return value


def builtin_root() -> Path:
    """Return the folder of the sets: inside an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "builtin_plugins"
    return installed if installed.is_dir() else _PACKAGE.parent / "plugins"


def builtin_names() -> list[str]:
    """Return the names of the sets, in order."""
    return sorted({file.parent.name for file in builtin_root().glob("*/*.yaml")})


def plugin_folder(value: object) -> object:
    """Return the folder that `builtin:NAME` stands for; other values pass. Raises `ValueError`."""
    if not isinstance(value, str) or not value.startswith(BUILTIN):
        return value
    name = value.removeprefix(BUILTIN)
    if name not in (names := builtin_names()):
        raise ValueError(f"there is no such plugin set; the sets are {', '.join(names) or 'none'}")
    return builtin_root() / name
