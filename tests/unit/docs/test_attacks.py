"""The attacks that docs/reference/console-security.md tells of: each row names tests that there are."""

from __future__ import annotations

import re

from tests.support import PROJECT

PAGE = PROJECT / "docs/reference/console-security.md"


def test_each_attack_names_tests_that_there_are() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    attacks = [row for row in rows if not row.startswith("| attack |")]
    missing = []
    for row in attacks:
        named = re.findall(r"`(\w[\w/]*\.py)::(test_\w+)`", row)
        assert named, row
        missing += [
            f"{file}::{test}"
            for file, test in named
            if not re.search(rf"^(async )?def {test}\(", text_of(file), re.MULTILINE)
        ]
    assert missing == []


def text_of(file: str) -> str:
    path = PROJECT / "tests" / file
    return path.read_text() if path.exists() else ""
