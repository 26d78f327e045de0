"""Every text of the pages is in every language, and no language has a text that no page shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from gateway.endpoints.console.static_files import STATIC

LANGUAGES: Final = sorted((STATIC / "languages").glob("*.json"))
SCRIPTS: Final = [path for path in sorted(STATIC.rglob("*.js")) if path.name != "texts.js"]

_LITERAL: Final = r'"((?:[^"\\]|\\.)*)"'
_ONE: Final = re.compile(rf"(?<![\w.])t\(\s*{_LITERAL}", re.DOTALL)
_COUNTS: Final = re.compile(rf"(?<![\w.])tn\(\s*{_LITERAL}\s*,\s*{_LITERAL}", re.DOTALL)
_VALUES: Final = re.compile(r"\{\w+\}")

_NAMES: Final = {"language"}
"""Keys that are no texts of a page."""

_ANYWHERE: Final = {"The gateway does not answer."}
"""Texts that reach `t` through a variable."""


def texts_of(script: Path) -> set[str]:
    """Return the keys of a script: the English text, the plural where it counts."""
    source = script.read_text()
    found = [match[1] for match in _ONE.finditer(source)]
    found += [match[2] for match in _COUNTS.finditer(source)]
    return {json.loads(f'"{text}"') for text in found}


ALL: Final = set[str]().union(*map(texts_of, SCRIPTS)) | _ANYWHERE


@pytest.mark.parametrize("file", LANGUAGES, ids=lambda file: file.stem)
def test_a_language_has_every_text_and_no_other(file: Path) -> None:
    texts = json.loads(file.read_text())
    assert ALL - texts.keys() == set()
    assert texts.keys() - ALL - _NAMES == set()


@pytest.mark.parametrize("file", LANGUAGES, ids=lambda file: file.stem)
def test_a_translation_fills_in_what_the_english_text_does(file: Path) -> None:
    for text, translated in json.loads(file.read_text()).items():
        forms = translated if isinstance(translated, list) else [translated]
        for form in forms:
            assert form, text
            assert set(_VALUES.findall(form)) == set(_VALUES.findall(text)), text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_texts_are_literals_that_can_be_collected(script: Path) -> None:
    source = script.read_text()
    # `t(error.message)` and the like: messages of the API, which are English
    allowed = r"\w+\.message"
    calls = re.findall(r"(?<![\w.])tn?\(\s*([^\s)][^,)]*)", source)
    others = [call.strip() for call in calls if not call.startswith('"')]
    assert [call for call in others if not re.fullmatch(allowed, call)] == []
