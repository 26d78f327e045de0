"""docs/architecture.md names packages, files and functions that exist."""

from __future__ import annotations

import ast
import re
from typing import Final

import pytest

from tests.support import PROJECT

PAGE: Final = (PROJECT / "docs/architecture.md").read_text()
STEPS: Final = re.findall(r"`(gateway/[\w/]+\.py)` `([\w.]+)` \|", PAGE)


@pytest.mark.parametrize(("file", "name"), STEPS, ids=[name for _, name in STEPS])
def test_each_step_of_the_walks_is_a_function_of_that_file(file: str, name: str) -> None:
    body: list[ast.stmt] = ast.parse((PROJECT / file).read_text()).body
    for part in name.split("."):
        [node] = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == part
        ]
        body = node.body


def test_the_walks_have_steps() -> None:
    assert len(STEPS) > 15
