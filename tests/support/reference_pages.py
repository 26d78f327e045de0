"""Tables of the reference pages under docs/, as the tests compare them with the code."""

from __future__ import annotations

import re
from typing import Final

from tests.support import PROJECT

REFERENCE: Final = PROJECT / "docs/reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def section(text: str, opening: str) -> str:
    """What stands below a heading or a comment, up to the next one."""
    match = re.search(rf"^{re.escape(opening)}$(.*?)(?=^#|^<!--|\Z)", text, re.MULTILINE | re.DOTALL)
    assert match, opening
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The cells of each table row whose first cell is code or a number."""
    lines = re.findall(r"^\| ((?:`|\d).*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r" \| ?", line)] for line in lines]


def keys(text: str) -> list[str]:
    """The first cells of a table, without their quotes."""
    return [row[0].strip("`") for row in rows(text)]
