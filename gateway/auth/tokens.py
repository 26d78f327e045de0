"""The tokens of the settings, and the generated one in the state folder: `tokens.json`."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from gateway.errors import ConfigError
from gateway.settings import Settings, Token
from gateway.storage.keyfile import write_key_file

TOKENS_FILE: Final = "tokens.json"


def new_token() -> str:
    """Make a token: 256 random bits, safe in a header and a URL."""
    return secrets.token_urlsafe(32)


def token_digest(token: str) -> str:
    """Return what is kept of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class AcceptedTokens:
    """The tokens in force."""

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._tokens

    def replace(self, tokens: Iterable[Token]) -> None:
        """Accept these from now on, and no others."""
        self._tokens = tuple(tokens)

    def find(self, presented: Iterable[str]) -> Token | None:
        """Return a token that is among those that a request presents."""
        return self.find_digest(*map(token_digest, presented))

    def find_digest(self, *digests: str) -> Token | None:
        """Return a token whose SHA-256 is one of these."""
        matching: Token | None = None
        for digest in digests:
            for token in self._tokens:  # all of them: the time taken must not tell which one matches
                if hmac.compare_digest(digest, token.sha256):
                    matching = token
        return matching


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

    The caller holds the lock of the directory. Raises ConfigError for a damaged file, OSError.
    """
    if stored_tokens(state_dir):
        return None
    token = new_token()
    entry = {"name": "generated", "sha256": token_digest(token)}
    path = state_dir / TOKENS_FILE
    state_dir.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)  # a list that the operator emptied
    write_key_file(path, json.dumps({"tokens": [entry]}, indent=2).encode() + b"\n")
    return token
