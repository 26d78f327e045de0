"""The gateways of one installation, and the credentials by which they authenticate each other.

A credential is made only for a gateway that the operator named (`peers`), for one that an event names
as the owner of its file, or for this one. A call to this one goes straight to its own socket, by
whatever name.
"""

from __future__ import annotations

import base64
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from yarl import URL

from gateway.domain.addresses import ALL_INTERFACES, Address, connectable_host, host_port
from gateway.errors import ConfigError
from gateway.settings import Settings, is_loopback
from gateway.signing.keys import (
    MIN_KEY_BYTES,
    CredentialSigner,
    LinkSigner,
    ObjectMarker,
    TrustedCall,
    UploadSecrets,
)
from gateway.signing.sign_in import SignInSigner
from gateway.signing.urls import UrlSigner
from gateway.storage.keyfile import GROUP_MAY_READ, read_key_file, write_key_file

KEY_FILE: Final = "installation.key"
"""The file name of the key in the state folder, where no file is given."""

MAX_ADDED_PEERS: Final = 1000
"""Owners of files that are remembered; each delivery names its own again."""


class Installation:
    """This gateway among its peers. `bound` is the address that it listens on.

    The first of `keys` signs, all of them verify. `urls` signs and verifies URLs, `marks` the objects
    of a bucket that others may write too; `secrets` are those of partial uploads, `links`
    signs for whoever knows the password of a link, `sign_in` for people who sign in.
    """

    def __init__(self, settings: Settings, keys: Sequence[bytes], bound: tuple[str, int]) -> None:
        self._signer = CredentialSigner(keys)
        self.urls = UrlSigner(keys)
        self.marks = ObjectMarker(keys)
        self.secrets = UploadSecrets(keys)
        self.sign_in = SignInSigner(keys)
        self.links = LinkSigner(keys)
        self.settings = settings
        self._bound = bound
        self._peers = frozenset(_plain(*peer) for peer in settings.peers)
        self._added: dict[Address, None] = {}
        self._certificate: ssl.SSLContext | None = None
        self._to_peers: ssl.SSLContext | None = None
        self.read_certificate()

    @property
    def own(self) -> Address:
        """The address by which this gateway connects to itself: never `all interfaces`."""
        host, port = self._bound
        return Address(connectable_host(host), port)

    @property
    def own_url(self) -> str:
        """The same as a URL."""
        return f"{self.scheme}://{audience(*self.own)}"

    @property
    def advertised(self) -> Address:
        """The address that events name: never `all interfaces`."""
        return self.settings.advertise or self.own

    @property
    def scheme(self) -> str:
        """`https` where there is a certificate."""
        return "https" if self._certificate else "http"

    def read_certificate(self) -> None:
        """Read the certificate of `tls_cert`: calls to this gateway trust it and no other.

        Where clients need certificates, calls to gateways of the installation show it too. Blocking.
        Raises `ConfigError`.
        """
        settings = self.settings
        if settings.tls_cert is None:
            return
        own = _trust_only(settings.tls_cert)
        if settings.tls_client_ca is not None:
            peers = ssl.create_default_context()
            for context in (own, peers):
                _show(context, settings)
            self._to_peers = peers
        self._certificate = own

    def verify_credential(self, credential: str, method: str, target: str) -> bool:
        """Tell whether a gateway of this installation sent exactly this request to this one."""
        return self._signer.is_valid(credential, self._audiences(), method, target)

    def add_peer(self, peer: Address) -> None:
        """Count a gateway that an event names as the owner of its file among the peers.

        A credential is made for the gateway that it is sent to, and is worthless to any other.
        """
        self._added.pop(plain := _plain(*peer), None)
        self._added[plain] = None
        while len(self._added) > MAX_ADDED_PEERS:
            del self._added[next(iter(self._added))]

    def credentials_for(self, method: str, url: URL) -> TrustedCall | None:
        """Return how to call `url` if it is of a gateway of this installation, else None."""
        address = _plain(url.host or "", url.port or 0)
        target = url.raw_path_qs
        if address in self._own_names():
            own_url = url.with_scheme(self.scheme).with_host(self.own.host).with_port(self.own.port)
            credential = self._signer.credential(audience(*self.own), method, target)
            return TrustedCall(own_url, credential, self._certificate or True)
        if address in self._peers or address in self._added:
            credential = self._signer.credential(audience(*address), method, target)
            return TrustedCall(url, credential, self._to_peers or True)
        return None

    def _audiences(self) -> set[str]:
        """Return the audiences by which credentials may name this gateway."""
        return {audience(*self.own), audience(*self.advertised)}

    def _own_names(self) -> set[Address]:
        """Return the addresses of this gateway, loopback ones only if it listens there."""
        host, port = self._bound
        names = {host, self.own.host}
        if is_loopback(self.own.host) or host in ALL_INTERFACES:
            names |= {"localhost", "::1" if ":" in host else "127.0.0.1"}
        addresses = {_plain(name, port) for name in names}
        if self.settings.advertise is not None:
            addresses.add(_plain(*self.settings.advertise))
        return addresses


def public_url(settings: Settings, bound: Address) -> str:
    """Return what URLs begin with: the setting, else the advertised address, else the bound one."""
    scheme = "https" if settings.tls_cert else "http"
    place = settings.advertise or Address(connectable_host(bound.host), bound.port)
    return settings.public_url or f"{scheme}://{audience(*place)}"


def audience(host: str, port: int) -> str:
    """Return `host:port` as credentials spell it: lower case, IPv6 in brackets."""
    return host_port(*_plain(host, port))


def installation_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys of the installation: those of the given file, or the state folder's own.

    One a line: the first signs, all of them verify. A first start creates the latter file; the caller
    holds the lock of the directory. A given file that is missing is never created: the peers would
    not have that key. Raises `ConfigError`.
    """
    given = settings.installation_key_file
    path = given or settings.state / KEY_FILE
    if given is None and not path.exists():
        _make(path)
    return read_installation_keys(path)


def read_installation_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys in a file, one a line, the newest first. Raises `ConfigError`."""
    lines = read_key_file(path, GROUP_MAY_READ).splitlines() or [b""]
    for number, line in enumerate(lines, start=1):
        if len(line.strip()) < MIN_KEY_BYTES:
            raise ConfigError(
                f"an installation key is a line of at least {MIN_KEY_BYTES} bytes: make one with"
                " `openssl rand -base64 48` and give every gateway the same",
                str(path),
                number,
            )
    return tuple(line.strip() for line in lines)


def _make(path: Path) -> None:
    try:
        write_key_file(path, base64.b64encode(secrets.token_bytes(MIN_KEY_BYTES)) + b"\n")
    except FileExistsError:
        return  # another process of this directory created it
    except OSError as error:
        raise ConfigError(
            f"the installation key cannot be written ({error.strerror}): check the disk and the"
            " owner of the folder",
            str(path),
        ) from error


def _plain(host: str, port: int) -> Address:
    return Address(host.lower().rstrip("."), port)


def _show(context: ssl.SSLContext, settings: Settings) -> None:
    try:
        context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"cannot be used with its key ({error})", str(settings.tls_cert)) from error


def _trust_only(certificate: Path) -> ssl.SSLContext:
    """Return a client's context that accepts the first certificate of the file, under any name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # the certificate itself is compared, and it names the public host
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        first, end, _ = certificate.read_text(encoding="ascii").partition(ssl.PEM_FOOTER)
        _, header, body = first.partition(ssl.PEM_HEADER)
        if not header:
            raise ValueError("it holds no certificate")
        context.load_verify_locations(cadata=header + body + end)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the certificate cannot be read ({error}): it must be a PEM file", str(certificate)
        ) from error
    return context
