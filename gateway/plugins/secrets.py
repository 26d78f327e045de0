"""`!secret` values and their keys, and the references `${env:NAME}` and `${file:PATH}` of Configs.

They are resolved when plugins are loaded; errors name the reference and its line, never a value. A key
is never logged or quoted; only `new_key` returns one. The cipher is Fernet of the library `cryptography`
(AES-128-CBC with HMAC-SHA256, a random IV; github.com/fernet/spec), so a damaged or forged token is
noticed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import ConfigError, GatewayError
from gateway.plugins.yaml_documents import Document, SecretToken
from gateway.settings import Settings
from gateway.settings.values import SECRETS_KEY
from gateway.storage.keyfile import read_key_file
from gateway.telemetry.redaction import Mask

if TYPE_CHECKING:  # it takes 7 MB of memory, which a gateway without a key does not need
    from cryptography.fernet import Fernet

MAX_VALUE_BYTES: Final = 64 * 1024
"""Largest value that is encrypted."""

MAX_FILE_BYTES: Final = 1024 * 1024
"""Largest file that a value may come from."""

_REFERENCE: Final = re.compile(r"\$\{(\w+):([^}]*)\}")


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


def secret_keys(settings: Settings, missing: list[ConfigError] | None = None) -> SecretKeys:
    """Return the keys of the environment, then those of the key file. Raises `ConfigError`.

    `missing`, where it is given, takes the error of a key file that does not exist.
    """
    keys = [key.get_secret_value() for key in settings.secrets_key]
    file = settings.secrets_key_file
    if file is not None and missing is not None and not file.exists():
        missing.append(ConfigError("the file of --secrets-key-file does not exist", str(file)))
    elif file is not None:
        keys += _from_file(file)
    return SecretKeys(keys)


def _from_file(path: Path) -> Iterator[str]:
    """Yield the keys of a file, one a line; empty lines and comments (`#`) are skipped."""
    count = 0
    for number, line in enumerate(read_key_file(path).splitlines(), start=1):
        text = line.strip().decode("ascii", "replace")
        if not text or text.startswith("#"):
            continue
        if not SECRETS_KEY.fullmatch(text):
            message = "invalid key: `gateway secrets keygen` prints one of 44 characters"
            raise ConfigError(message, str(path), number)
        count += 1
        yield text
    if not count:
        raise ConfigError("there is no key in this file: `gateway secrets keygen` makes one", str(path))


class References:
    """Resolves the references of one document and keeps their values as `secrets`, to be masked.

    With `missing`, what only a deployment has (a variable, a file, a key) is noted there and its
    reference stays in its place. Otherwise that is an error.
    """

    def __init__(
        self, document: Document, keys: SecretKeys, missing: list[ConfigError] | None = None
    ) -> None:
        self._document = document
        self._keys = keys
        self._missing = missing
        self.secrets: list[str] = []

    def resolve(self, value: Any, *where: object) -> Any:
        """Return `value` with all references in it replaced. Raises `ConfigError`."""
        if isinstance(value, dict):
            return {key: self.resolve(item, *where, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, *where, index) for index, item in enumerate(value)]
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._value_of(match, where), value)
        if isinstance(value, SecretToken):
            return self._decrypt(value, where)
        return value

    def _decrypt(self, token: SecretToken, where: tuple[object, ...]) -> str:
        if not self._keys and self._missing is not None:
            return self._placeholder(f"this !secret cannot be opened: {_NO_KEY}", "!secret", where)
        try:
            value = self._keys.decrypt(token.text)
        except DecryptionError as error:
            raise self._error(str(error), where) from None
        self.secrets.append(value)
        return value

    def _value_of(self, match: re.Match[str], where: tuple[object, ...]) -> str:
        scheme, name = match.groups()
        if scheme == "env":
            value = os.environ.get(name)
            if value is None:
                message = f"the environment variable {name} is not set"
                return self._placeholder(message, match[0], where)
        elif scheme == "file":
            try:
                value = self._read(name, where)
            except FileNotFoundError:
                return self._placeholder(
                    f"the file {name} cannot be read: no such file", match[0], where
                )
        else:
            raise self._error(f"there is no ${{{scheme}:}}: use ${{env:NAME}} or ${{file:PATH}}", where)
        self.secrets.append(value)
        return value

    def _read(self, name: str, where: tuple[object, ...]) -> str:
        try:
            with (self._document.file.parent / name).open(encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._error(f"the file {name} cannot be read: {error.strerror}", where) from None
        except UnicodeDecodeError:
            raise self._error(f"the file {name} is not UTF-8", where) from None
        if len(text) > MAX_FILE_BYTES:
            raise self._error(f"the file {name} is larger than {MAX_FILE_BYTES} bytes", where)
        return text.removesuffix("\n").removesuffix("\r")

    def _placeholder(self, message: str, text: str, where: tuple[object, ...]) -> str:
        """Return `text` for a value that is missing here. Raises `ConfigError` where it must not be."""
        error = self._error(message, where)
        if self._missing is None:
            raise error
        self._missing.append(error)
        return text

    def _error(self, message: str, where: tuple[object, ...]) -> ConfigError:
        return self._document.error(message, *where)


class PluginSecrets:
    """Resolves the references of plugins that are no Configs. Their values are masked from now on."""

    def __init__(
        self,
        keys: SecretKeys | None = None,
        mask: Mask | None = None,
        missing: list[ConfigError] | None = None,
    ) -> None:
        self._keys = SecretKeys() if keys is None else keys
        self._mask = Mask() if mask is None else mask
        self._missing = missing

    def resolve(self, document: Document, value: Any, *where: object) -> tuple[Any, bool]:
        """Return `value` with its references replaced, and whether none was missing.

        `where` leads to it. Raises `ConfigError`.
        """
        missing = None if self._missing is None else list[ConfigError]()
        references = References(document, self._keys, missing)
        resolved = references.resolve(value, *where)
        self.hide(references.secrets)
        if missing and self._missing is not None:
            self._missing += missing
        return resolved, not missing

    def hide(self, secrets: Iterable[str]) -> None:
        """Mask these texts in logs and stored messages."""
        self._mask.add_secrets(secrets)
