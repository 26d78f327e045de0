"""The verb `secrets`: make a key, and encrypt values for Config plugins.

The rule: a value is read from stdin or typed without being shown, never taken from the command
line, where others could read it in the process list; nothing is decrypted here.
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

  gateway secrets keygen [--out FILE]    make a key; FILE is made with mode 0600, never replaced
  gateway secrets encrypt                read a value from stdin, or ask for it; print `!secret ...`

The key is given to the server as UPLOAD_GATEWAY_SECRETS_KEY or as --secrets-key-file FILE."""

USAGE: Final = "keygen|encrypt [flags]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes beside the settings."""
    parser.add_argument("action", choices=("keygen", "encrypt"), help="what to do")
    parser.add_argument("--out", metavar="FILE", help="keygen: write the key to this new file")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Do what was asked for. Raises `ConfigError`."""
    if args.action == "keygen":
        return _keygen(args.out)
    if args.out:
        raise ConfigError("--out belongs to keygen; `encrypt` prints to stdout")
    keys = secret_keys(settings)
    if not keys:
        keys.encrypt("")  # says that there is no key, before a value is asked for
    print(f"!secret {keys.encrypt(_value())}")
    return 0


def _keygen(out: str | None) -> int:
    if out is None:
        print(new_key())
        print(
            "this key opens every value that is encrypted with it: keep it apart from the plugins,"
            " and a copy in a safe place\ngive it to the server as UPLOAD_GATEWAY_SECRETS_KEY",
            file=sys.stderr,
        )
        return 0
    path = Path(os.path.abspath(out))
    try:
        write_key_file(path, f"{new_key()}\n".encode())
    except FileExistsError:
        raise ConfigError(
            "this file exists and is not replaced: its key may be in use", str(path)
        ) from None
    except OSError as fault:
        raise ConfigError(f"cannot be written: {fault.strerror}", str(path)) from None
    print(f"made {path}; keep a copy in a safe place, and start with --secrets-key-file {path}")
    return 0


def _value() -> str:
    """Return the value: typed, or all of stdin without its last line break."""
    if sys.stdin.isatty():
        value = getpass.getpass("value (it is not shown): ")
    else:
        content = sys.stdin.buffer.read(MAX_VALUE_BYTES + 3)
        try:
            value = content.decode()
        except UnicodeDecodeError:
            raise ConfigError("the value is not UTF-8 text; encode it, in base64 perhaps") from None
        value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise ConfigError("there is no value: give it on stdin, `printf %s VALUE | gateway ...`")
    if len(value.encode()) > MAX_VALUE_BYTES:
        raise ConfigError(f"the value is larger than {MAX_VALUE_BYTES} bytes: use ${{file:PATH}}")
    return value
