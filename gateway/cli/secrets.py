"""`gateway secrets`: creates a key and encrypts values for Config plugins.

A value is read from stdin or typed without echo, not from the command line, which other users can
read in the process list. Nothing is decrypted here.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.plugins.secrets import MAX_VALUE_BYTES, new_key, secret_keys
from gateway.settings import Settings
from gateway.storage.keyfile import write_key_file

HELP: Final = """\
Keep secrets out of the YAML of plugins.

  gateway secrets keygen [--out FILE]    create a key; FILE gets mode 0600 and is never replaced
  gateway secrets encrypt                read a value from stdin or the terminal; print `!secret ...`

Give the key to the server as UPLOAD_GATEWAY_SECRETS_KEY or as --secrets-key-file FILE."""

USAGE: Final = "keygen|encrypt [flags]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=("keygen", "encrypt"), help="what to do")
    parser.add_argument("--out", metavar="FILE", help="keygen: write the key to this new file")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Raises `ConfigError`."""
    if args.action == "keygen":
        return _keygen(args.out)
    if args.out:
        raise ConfigError("--out belongs to keygen; `encrypt` prints to stdout")
    keys = secret_keys(settings)
    if not keys:
        keys.encrypt("")  # raises for the missing key before a value is typed
    print(f"!secret {keys.encrypt(_value())}")
    return 0


def _keygen(out: str | None) -> int:
    if out is None:
        print(new_key())
        print(
            "this key decrypts every value that is encrypted with it: store it apart from the plugins,"
            " with a copy in a safe place\ngive it to the server as UPLOAD_GATEWAY_SECRETS_KEY",
            file=sys.stderr,
        )
        return 0
    path = Path(os.path.abspath(out))
    try:
        write_key_file(path, f"{new_key()}\n".encode())
    except FileExistsError:
        raise ConfigError(
            "the file exists and is not replaced: its key may be in use", str(path)
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(path)) from None
    print(f"created {path}; store a copy in a safe place, and start with --secrets-key-file {path}")
    return 0


def _value() -> str:
    """Return the value: typed, or all of stdin without the last line break."""
    if sys.stdin.isatty():
        value = getpass.getpass("value (not shown): ")
    else:
        content = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
        try:
            value = content.decode()
        except UnicodeDecodeError:
            raise ConfigError("the value is not UTF-8 text; encode it, for example in base64") from None
        value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise ConfigError("there is no value: send it to stdin, `printf %s VALUE | gateway ...`")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ConfigError(f"the value is larger than {MAX_VALUE_BYTES} bytes: use ${{file:PATH}}")
    return value
