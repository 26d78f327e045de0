"""The installation's certificate: what it is read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth.installation import Installation
from gateway.errors import ConfigError
from gateway.settings import Settings


def test_a_file_that_is_no_certificate_is_told_as_such(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("no certificate")
    settings = Settings(directory=tmp_path, tls_cert=cert)
    with pytest.raises(ConfigError, match=r"it holds no certificate\): it must be a PEM file"):
        Installation(settings, [b"k" * 32], ("127.0.0.1", 1))
