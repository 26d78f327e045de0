"""The plugin sets that ship with the gateway, named `builtin:NAME` where a folder is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PREFIX: Final = "builtin:"
_PACKAGE: Final = Path(__file__).resolve().parent.parent


def builtin_root() -> Path:
    """Return the folder of the sets: inside an installed package, beside the package in a checkout."""
    installed = _PACKAGE / "builtin_plugins"
    return installed if installed.is_dir() else _PACKAGE.parent / "plugins"


def builtin_names() -> list[str]:
    """Return the names of the sets, in order."""
    return sorted({file.parent.name for file in builtin_root().glob("*/*.yaml")})


def plugin_folder(value: object) -> object:
    """Return the folder that `builtin:NAME` stands for; other values pass. Raises `ValueError`."""
    if not isinstance(value, str) or not value.startswith(PREFIX):
        return value
    name = value.removeprefix(PREFIX)
    if name not in (names := builtin_names()):
        raise ValueError(f"there is no such plugin set; the sets are {', '.join(names) or 'none'}")
    return builtin_root() / name
