"""The tokens of the settings, and the generated one in the state folder: `tokens.json`."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import Settings, Token
from gateway.storage.local.directory import sync_folder

TOKENS_FILE: Final = "tokens.json"
GENERATED: Final = "generated"
"""The name of the token that a first start with `--auth token` generates."""


def new_token() -> str:
    """Make a token: 256 random bits, safe in a header and a URL."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """Return what is kept of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def tokens_of(settings: Settings) -> tuple[Token, ...]:
    """Return the tokens in force: those of the settings, else the generated one.

    As soon as the operator lists tokens, the generated one is void. Raises ConfigError.
    """
    return settings.tokens or stored_tokens(settings.state)


def stored_tokens(state_dir: Path) -> tuple[Token, ...]:
    """Return the tokens kept in the state folder. Raises ConfigError when the file is damaged."""
    path = state_dir / TOKENS_FILE
    advice = "remove it and start again to get a new token"
    try:
        kept = json.loads(path.read_bytes())
        return tuple(Token.model_validate(entry) for entry in kept["tokens"])
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}; check its owner", str(path)) from None
    except (ValueError, KeyError, TypeError, ValidationError):
        raise ConfigError(f"is damaged; {advice}", str(path)) from None


def ensure_token(state_dir: Path) -> str | None:
    """Make and keep a token if the state folder has none; return it, the only time it is seen.

    The file is written aside, synced, then renamed, so that a crash leaves all or nothing.
    The caller holds the lock of the directory. Raises ConfigError for a damaged file, OSError.
    """
    if stored_tokens(state_dir):
        return None
    token = new_token()
    entry = {"name": GENERATED, "sha256": token_digest(token)}
    _write(state_dir, json.dumps({"tokens": [entry]}, indent=2) + "\n")
    return token


def _write(state_dir: Path, text: str) -> None:
    state_dir.mkdir(mode=0o700, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=TOKENS_FILE, dir=state_dir)  # 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, state_dir / TOKENS_FILE)
    except BaseException:
        os.unlink(aside)
        raise
    sync_folder(state_dir)
