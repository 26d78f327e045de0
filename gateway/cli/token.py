"""`gateway token`: creates a token. It is printed once and not stored; settings hold its SHA-256."""

from __future__ import annotations

import argparse

from gateway.auth.installation import public_url
from gateway.auth.tokens import new_token, token_digest
from gateway.domain.addresses import Address
from gateway.domain.grant import encode_path
from gateway.domain.template_segments import fill_variables
from gateway.errors import ConfigError
from gateway.settings import Settings, Token

HELP = """\
Create a token. It is printed once and not stored: give it to the user or program that uploads, and
put the line below it into the settings file (config/gateway.yaml), which has only its SHA-256."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--name`."""
    parser.add_argument(
        "--name", default="default", help="principal in logs and events (default: default)"
    )


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print a new token and its line for the settings file. Raises ConfigError for a bad name."""
    name = str(args.name)
    token = new_token()
    try:
        entry = Token(name=name, sha256=token_digest(token))
    except ValueError:
        raise ConfigError(
            f"--name: {name!r} must be letters, digits and . _ @ + - (at most 100)"
        ) from None
    if name in {existing.name for existing in settings.tokens}:
        raise ConfigError(f"--name: the settings have a token {name} already; choose another name")
    print(f"token (shown only now): {token}\n")
    item = f"- {{name: {name}, sha256: {entry.sha256}}}"
    if settings.tokens:
        print(f"add this item to `tokens:` in the settings file:\n\n{item}\n")
    else:
        print(f"add this to the settings file:\n\nauth: token\ntokens:\n{item}\n")
    print(f"then upload with: curl -H 'X-Auth-Token: {token}' -T FILE {_url(settings)}")
    return 0


def _url(settings: Settings) -> str:
    """Return the URL of an upload: FILE for the file, the name in capitals for other variables."""
    path = fill_variables(
        settings.file_upload_api_path,
        lambda name: "FILE" if name in {"filepath", "filename"} else name.upper(),
    )
    return public_url(settings, Address(settings.host, settings.port)) + encode_path(path)
