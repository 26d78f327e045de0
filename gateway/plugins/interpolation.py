"""Resolves `${env:NAME}`, `${file:PATH}` and `!secret` in the values of Config plugins.

One rule: errors tell which reference failed and where, never what a value is.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.plugins.secrets import DecryptionError, SecretKeys
from gateway.plugins.yaml_documents import Document, SecretToken

_REFERENCE: Final = re.compile(r"\$\{(\w+):([^}]*)\}")
LARGEST_FILE: Final = 1024 * 1024
"""Bytes of a file that a value may come from."""


class References:
    """Resolves the references of one document and remembers what they stood for, to mask it."""

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
            return _REFERENCE.sub(lambda match: self._one(match, where), value)
        if isinstance(value, SecretToken):
            return self._open(value, where)
        return value

    def _open(self, token: SecretToken, where: tuple[object, ...]) -> str:
        try:
            value = self._keys.decrypt(token.text)
        except DecryptionError as fault:
            raise self._fault(str(fault), where) from None
        self.secrets.append(value)
        return value

    def _one(self, match: re.Match[str], where: tuple[object, ...]) -> str:
        scheme, name = match.groups()
        if scheme == "env":
            found = os.environ.get(name)
            if found is None:
                raise self._fault(f"the environment variable {name} is not set", where)
        elif scheme == "file":
            found = self._read(name, where)
        else:
            raise self._fault(f"there is no ${{{scheme}:}}: use ${{env:NAME}} or ${{file:PATH}}", where)
        self.secrets.append(found)
        return found

    def _read(self, name: str, where: tuple[object, ...]) -> str:
        try:
            with (self._document.file.parent / name).open(encoding="utf-8") as file:
                text = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise self._fault(f"the file {name} cannot be read: {error.strerror}", where) from None
        except UnicodeDecodeError:
            raise self._fault(f"the file {name} is not UTF-8", where) from None
        if len(text) > LARGEST_FILE:
            raise self._fault(f"the file {name} is larger than {LARGEST_FILE} bytes", where)
        return text.removesuffix("\n").removesuffix("\r")

    def _fault(self, message: str, where: tuple[object, ...]) -> ConfigError:
        return self._document.fault(message, *where)
