"""Resolves `${env:NAME}`, `${file:PATH}` and `!secret` in the values of Config plugins.

Errors name the reference and its line, never a value.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.plugins.secrets import DecryptionError, SecretKeys
from gateway.plugins.yaml_documents import Document, SecretToken

_REFERENCE: Final = re.compile(r"\$\{(\w+):([^}]*)\}")
MAX_FILE_BYTES: Final = 1024 * 1024
"""Largest file that a value may come from."""


class References:
    """Resolves the references of one document and keeps their values as `secrets`, to be masked."""

    def __init__(self, document: Document, keys: SecretKeys) -> None:
        self._document = document
        self._keys = keys
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
                raise self._error(f"the environment variable {name} is not set", where)
        elif scheme == "file":
            value = self._read(name, where)
        else:
            raise self._error(f"there is no ${{{scheme}:}}: use ${{env:NAME}} or ${{file:PATH}}", where)
        self.secrets.append(value)
        return value

    def _read(self, name: str, where: tuple[object, ...]) -> str:
        try:
            with (self._document.file.parent / name).open(encoding="utf-8") as file:
                text = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self._error(f"the file {name} cannot be read: {error.strerror}", where) from None
        except UnicodeDecodeError:
            raise self._error(f"the file {name} is not UTF-8", where) from None
        if len(text) > MAX_FILE_BYTES:
            raise self._error(f"the file {name} is larger than {MAX_FILE_BYTES} bytes", where)
        return text.removesuffix("\n").removesuffix("\r")

    def _error(self, message: str, where: tuple[object, ...]) -> ConfigError:
        return self._document.error(message, *where)
