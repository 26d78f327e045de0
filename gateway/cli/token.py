"""The verb `token`: make a token for a person or program that uploads.

The rule: the token is printed once and kept nowhere; only its SHA-256 goes into the settings.
"""

from __future__ import annotations

import argparse

from gateway.auth.authenticator import digest, new_token
from gateway.errors import ConfigError
from gateway.settings import Settings, Token

HELP = """\
Make a token. It is printed once and kept nowhere: give it to whoever uploads, and put the
line below it into the settings file (config/gateway.yaml). Only the SHA-256 is kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--name`: whom the token stands for in logs and events."""
    parser.add_argument("--name", default="default", help="whom the token stands for (default: default)")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print a new token and its line for the settings file. Raises ConfigError for a bad name."""
    name = str(args.name)
    token = new_token()
    try:
        kept = Token(name=name, sha256=digest(token))
    except ValueError:
        raise ConfigError(
            f"--name: {name!r} must be letters, digits and . _ @ + - (at most 100)"
        ) from None
    if name in {known.name for known in settings.tokens}:
        raise ConfigError(
            f"--name: the settings know a token called {name} already; choose another name"
        )
    print(f"token (shown only now): {token}\n")
    print("put this into the settings file, below what is listed there already:\n")
    print(f"auth: token\ntokens:\n- {{name: {name}, sha256: {kept.sha256}}}\n")
    print(f"then upload with: curl -H 'X-Auth-Token: {token}' -T FILE {_url(settings)}")
    return 0


def _url(settings: Settings) -> str:
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{settings.public_url or f'{scheme}://{host}:{settings.port}'}/upload/FILE"
