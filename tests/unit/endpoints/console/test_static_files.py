"""The files of the pages, with a theme and languages of the operator."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from gateway.endpoints.console.pages import BASES, PAGES, PagePlace
from gateway.endpoints.console.static_files import MAX_FILE_BYTES, MAX_LANGUAGES, StaticFiles
from gateway.errors import ConfigError
from gateway.settings import load

FRENCH = (
    '{"language": "Français", "Upload": "Envoyer", "{count} files": ["un fichier", "{count} fichiers"]}'
)


def files_with(**values: Path) -> StaticFiles:
    return StaticFiles(load({name: str(path) for name, path in values.items()}, {}))


def languages_of(files: StaticFiles) -> dict[str, str | None]:
    page = files.pages[PagePlace("upload", "-/")].content.decode()
    [text] = re.findall('data-languages="([^"]*)"', page)
    names: dict[str, str | None] = json.loads(html.unescape(text))
    return names


def test_every_page_is_filled_for_each_depth_of_a_path() -> None:
    files = files_with()
    for name in PAGES.values():
        for base in BASES:
            page = files.pages[PagePlace(name, base)].content.decode()
            assert f'src="{base}pages/{files.version}/console/{name}.js"' in page
            assert f'data-api="{base}"' in page
            assert "%" not in page.replace("100%", "")
    assert languages_of(files) == {"en": None, "ja": "日本語", "ko": "한국어"}
    assert "theme.css" not in files.named


def test_a_theme_is_behind_the_style_sheets_of_the_pages(tmp_path: Path) -> None:
    (tmp_path / "ours.css").write_text(":root { --accent: green; }")
    files = files_with(web_theme=tmp_path / "ours.css")
    for place, page in files.pages.items():
        links = re.findall('rel="stylesheet" href="([^"]*)"', page.content.decode())
        assert links[-1] == f"{place.base}pages/{files.version}/theme.css"
    assert files.named["theme.css"].content == b":root { --accent: green; }"
    assert files.version != files_with().version


def test_languages_are_offered_by_their_own_names(tmp_path: Path) -> None:
    (tmp_path / "fr.json").write_text(FRENCH)
    (tmp_path / "pt-br.json").write_text('{"Upload": "Enviar"}')
    (tmp_path / "ko.json").write_text('{"language": "<\\"한국어\\">"}')
    files = files_with(web_translations=tmp_path)
    names = {"en": None, "fr": "Français", "ja": "日本語", "ko": '<"한국어">', "pt-br": None}
    assert languages_of(files) == names
    assert files.named["languages/fr.json"].content == FRENCH.encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fr.json", "{", "fr.json: is not JSON: line 1"),
        ("fr.json", "[]", "fr.json: must be a JSON object"),
        ("fr.json", '{"Upload": 3}', "fr.json: the value of 'Upload' must be a text, or a list"),
        ("fr.json", '{"a": []}', "fr.json: the value of 'a' must be a text, or a list"),
        ("fr.json", '{"a": ["b", null]}', "fr.json: the value of 'a' must be a text, or a list"),
        ("fr.json", "[" * 100_000, "fr.json: is not JSON of texts"),
        ("fr.json", b"\xff", "fr.json: is not UTF-8"),
        ("FR.json", "{}", "FR.json: the file is not named after a language"),
        ("en.json", "{}", "en.json: the file is not named after a language"),
        ("french language.json", "{}", "the file is not named after a language"),
        ("fr.json", b" " * (MAX_FILE_BYTES + 1), "fr.json: is larger than 1 MiB"),
        ("fr.txt", "{}", "--web-translations has no language"),
    ],
)
def test_a_file_that_is_no_translation_is_refused(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refused:
        files_with(web_translations=tmp_path)
    assert message in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_what_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.css: cannot be read: No such file"):
        files_with(web_theme=tmp_path / "none.css")
    (tmp_path / "picture.css").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"picture\.css: --web-theme is not a style sheet"):
        files_with(web_theme=tmp_path / "picture.css")
    with pytest.raises(ConfigError, match="none: --web-translations is not a folder"):
        files_with(web_translations=tmp_path / "none")


def test_languages_are_bounded(tmp_path: Path) -> None:
    for number in range(MAX_LANGUAGES + 1):
        (tmp_path / f"x{chr(97 + number // 26)}{chr(97 + number % 26)}.json").write_text("{}")
    with pytest.raises(ConfigError, match="more than 100 languages"):
        files_with(web_translations=tmp_path)
