"""Certificate authorities and certificates for tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_USES: Final = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
}


class Pair(NamedTuple):
    """The files of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """A certificate authority, whose own certificate is `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key.public_key(), 1)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        signed = builder.add_extension(basic, critical=True).sign(self._key, hashes.SHA256())
        self.file = _written(folder / f"{name}.pem", signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        file: str,
        name: str | None,
        *,
        days: int = 1,
        names: Sequence[str] = (),
        use: str = "client",
    ) -> Pair:
        """Issue a certificate with a common name and DNS names; with negative `days` it has expired.

        `use` is what it is for: `client`, `server`, or both words.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([]) if name is None else _named(name)
        builder = _builder(subject, self._name, key.public_key(), days)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(text) for text in names])
            builder = builder.add_extension(alternatives, critical=name is None)
        usages = x509.ExtendedKeyUsage([_USES[word] for word in use.split()])
        builder = builder.add_extension(usages, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(pem, pkcs8, serialization.NoEncryption())
        return Pair(
            _written(self._folder / f"{file}.pem", signed.public_bytes(pem)),
            _written(self._folder / f"{file}.key", secret),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    end = now + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - dt.timedelta(days=1))
        .not_valid_after(end)
    )


def _written(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    return str(file)
