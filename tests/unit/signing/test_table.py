"""The table of attacks in the reference: every test that it names is there, and is one of ours."""

from __future__ import annotations

import re

from tests.support import PROJECT

PAGE = PROJECT / "docs/reference/signed-urls.md"


def rows() -> list[list[str]]:
    """The rows of the table, as cells."""
    table = PAGE.read_text(encoding="utf-8").partition("## Attacks")[2]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_attack_names_a_test_that_exists() -> None:
    written = "\n".join(file.read_text() for file in (PROJECT / "tests").rglob("test_*.py"))
    there_are = set(re.findall(r"^(?:async )?def (test_\w+)\(", written, re.MULTILINE))
    for attack, outcome, tests in rows():
        named = re.findall(r"`(test_\w+)`", tests)
        assert attack
        assert outcome
        assert named, attack
        assert set(named) <= there_are, attack


def test_every_attack_that_is_tested_over_sockets_stands_in_the_table() -> None:
    told = PAGE.read_text(encoding="utf-8")
    attacks = (PROJECT / "tests/integration/signed_urls/test_attacks.py").read_text()
    names = re.findall(r"^async def (test_\w+)\(", attacks, re.MULTILINE)
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in told] == []
