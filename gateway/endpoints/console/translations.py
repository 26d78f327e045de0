"""Files of languages: a JSON object of the texts of the pages, by their English texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError

LANGUAGES: Final = "languages"

_CODE: Final = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
"""A language tag in small letters, as pages compare it (RFC 5646 section 2.1.1)."""


def check_translation(path: Path, content: bytes) -> None:
    """Raise `ConfigError` for a file that is no translation."""
    if _CODE.fullmatch(path.stem) is None or path.stem == "en":
        message = "the file is not named after a language, in small letters: fr.json, pt-br.json"
        raise ConfigError(message, str(path))
    try:
        texts = json.loads(content)
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", str(path)) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not JSON: line {error.lineno}, {error.msg}", str(path)) from None
    except RecursionError:
        raise ConfigError("is not JSON of texts", str(path)) from None
    if not isinstance(texts, dict):
        raise ConfigError('must be a JSON object: {"Upload": "Envoyer", ...}', str(path))
    for key, value in texts.items():
        if not _is_text(value):
            message = f"the value of {key!r} must be a text, or a list with a text for each plural form"
            raise ConfigError(message, str(path))


def language_name(content: bytes) -> str | None:
    """Return the name of a language in itself, where its file has one."""
    texts: Mapping[str, Any] = json.loads(content)
    name = texts.get("language")
    return name if isinstance(name, str) else None


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(form, str) for form in value)
    return isinstance(value, str)
