"""The keys of `!secret` values: encrypted at rest, decrypted when plugins are loaded.

Keys and values leave this file only through `encrypt` and `decrypt`. The cipher is Fernet of the
library `cryptography` (AES-128-CBC with HMAC-SHA256, a random IV; github.com/fernet/spec), so a damaged
or forged token is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.errors import ConfigError, GatewayError
from gateway.settings import Settings
from gateway.storage.keyfile import read_key_file

if TYPE_CHECKING:  # it takes 7 MB of memory, which a gateway without a key does not need
    from cryptography.fernet import Fernet

MAX_VALUE_BYTES: Final = 64 * 1024
"""Largest value that is encrypted."""

_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}=", re.ASCII)


class DecryptionError(GatewayError):
    """A token cannot be decrypted. The message says why and what to do, and never quotes it."""


class SecretKeys:
    """The keys in force. The first one encrypts, each of them decrypts: so keys are rotated."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Take keys of 44 characters. Raises `ValueError` for an invalid key."""
        self._fernets = [_fernet(key) for key in keys]

    def __repr__(self) -> str:
        return f"<{len(self._fernets)} secrets keys>"

    def __bool__(self) -> bool:
        return bool(self._fernets)

    def encrypt(self, value: str) -> str:
        """Return the token of `value`. Raises `ConfigError` without a key, `ValueError` if too large."""
        if not self._fernets:
            raise ConfigError(_NO_KEY)
        from cryptography.fernet import MultiFernet

        content = value.encode()
        if len(content) > MAX_VALUE_BYTES:
            raise ValueError(f"the value is larger than {MAX_VALUE_BYTES} bytes")
        return MultiFernet(self._fernets).encrypt(content).decode()

    def decrypt(self, token: str) -> str:
        """Return the value of a token; white space in it is ignored. Raises `DecryptionError`."""
        if not self._fernets:
            raise DecryptionError(f"this !secret cannot be opened: {_NO_KEY}")
        from cryptography.fernet import InvalidToken, MultiFernet

        try:
            return MultiFernet(self._fernets).decrypt("".join(token.split())).decode()
        except (InvalidToken, ValueError):
            raise DecryptionError(
                "this !secret cannot be opened: it is damaged, or it was made with a key that is not"
                " set now; set that key too, or make it anew with `gateway secrets encrypt`"
            ) from None


LoadKeys = Callable[[], SecretKeys]
"""Called at every load of the plugins, so that a changed key file counts after SIGHUP."""

_NO_KEY: Final = (
    "there is no key; set UPLOAD_GATEWAY_SECRETS_KEY or --secrets-key-file"
    " (`gateway secrets keygen` makes one)"
)


def new_key() -> str:
    """Return a new key: 256 random bits as 44 characters."""
    from cryptography.fernet import Fernet

    return Fernet.generate_key().decode()


def _fernet(key: str) -> Fernet:
    from cryptography.fernet import Fernet

    return Fernet(key)


def secret_keys(settings: Settings) -> SecretKeys:
    """Return the keys of the environment, then those of the key file. Raises `ConfigError`."""
    keys = [key.get_secret_value() for key in settings.secrets_key]
    if settings.secrets_key_file is not None:
        keys += _from_file(settings.secrets_key_file)
    return SecretKeys(keys)


def _from_file(path: Path) -> Iterator[str]:
    """Yield the keys of a file, one a line; empty lines and comments (`#`) are skipped."""
    count = 0
    for number, line in enumerate(read_key_file(path).splitlines(), start=1):
        text = line.strip().decode("ascii", "replace")
        if not text or text.startswith("#"):
            continue
        if not _KEY.fullmatch(text):
            message = "invalid key: `gateway secrets keygen` prints one of 44 characters"
            raise ConfigError(message, str(path), number)
        count += 1
        yield text
    if not count:
        raise ConfigError("there is no key in this file: `gateway secrets keygen` makes one", str(path))
