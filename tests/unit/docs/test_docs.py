"""Pages as text: blocks, links, titles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support import PROJECT
from tests.support.doc_pages import Block, PageRunner, blocks, pages

PAGES: Final = pages()


LANGUAGES: Final = {"sh", "console", "yaml", "json", "text", "nginx", "mermaid", "html", "js", "python"}


RUN: Final = [page for page in PAGES if {"sh", "yaml"} & {block.language for block in blocks(page)}]


_LINK: Final = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def shown(page: Path, language: str) -> list[Block]:
    return [block for block in blocks(page) if block.language == language]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", RUN, ids=name)
def test_every_yaml_block_is_valid(page: Path, tmp_path: Path) -> None:
    with PageRunner(tmp_path) as reader:
        for block in blocks(page):
            if block.language == "yaml" or re.match(r"mkdir -p [\w-]+-plugins\n", block.text):
                reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_blocks_compile(page: Path) -> None:
    for block in shown(page, "python"):
        compile(block.text, f"{name(page)}:{block.line}", "exec")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("page", [page for page in PAGES if shown(page, "js")], ids=name)
def test_node_can_read_the_js_blocks(page: Path, tmp_path: Path) -> None:
    for block in shown(page, "js"):
        module = tmp_path / "block.mjs"
        module.write_text(block.text)
        done = subprocess.run(["node", "--check", module], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"line {block.line}: {done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_language_that_is_looked_at(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    fences = re.findall(r"^[ \t]*```", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a fence is indented, unclosed or odd"


def _written_folders(page: Path) -> set[str]:
    """Return the folders that the commands and files of a page write to."""
    text = "\n".join(block.text for language in ("sh", "yaml") for block in shown(page, language))
    return set(re.findall(r"(?:--directory |--plugins |^# )([\w-]+)(?=[/\s])", text, re.MULTILINE))


def test_no_two_pages_write_to_the_same_folder() -> None:
    pages_of: dict[str, list[str]] = {}
    for page in RUN:
        for folder in _written_folders(page) - {"plugins", "site", "issuer"}:
            pages_of.setdefault(folder, []).append(name(page))
    shared = {folder: pages for folder, pages in pages_of.items() if len(pages) > 1}
    # The quickstart goes on where the README ends.
    assert shared == {"data": ["README.md", "docs/quickstart.md"]}


def test_the_readme_names_the_two_commands_and_they_exist() -> None:
    [serve, upload, *_] = shown(PROJECT / "README.md", "console")
    assert serve.text == "./scripts/serve\n"
    assert upload.text.startswith("curl -T README.md ")
    assert "./scripts/test" in (PROJECT / "README.md").read_text()
    assert (PROJECT / "scripts/serve").is_file()
    assert (PROJECT / "scripts/test").is_file()


def test_commands_for_another_machine_use_what_the_project_has() -> None:
    said = "".join(block.text for page in PAGES for block in shown(page, "console"))
    assert "./scripts/image\n" in said
    assert (PROJECT / "Dockerfile").is_file()
    scripts = re.findall(r"\./(scripts/\w+)", said)
    plugins = re.findall(r"(?<![\w-])(plugins/[\w-]+)\b", said)
    assert scripts
    assert plugins
    assert [place for place in (*scripts, *plugins) if not (PROJECT / place).exists()] == []


def test_what_the_docker_page_says_of_the_image_is_what_the_image_does() -> None:
    page = (PROJECT / "docs/how-to/run-in-docker.md").read_text()
    image = (PROJECT / "Dockerfile").read_text()
    [command] = re.findall(r"^CMD \[(.*)\]$", image, re.MULTILINE)
    assert "gateway " + command.replace('"', "").replace(",", "") in page
    [user] = re.findall(r"^USER (\d+)", image, re.MULTILINE)
    assert f"user {user}" in page
    [variables] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", image, re.MULTILINE)
    for said in ("DIRECTORY=/data", "HOST=0.0.0.0", "AUTH=token"):
        assert f"UPLOAD_GATEWAY_{said}" in variables
    assert "http://127.0.0.1:8080/-/health" in image


def test_the_nginx_page_has_what_large_uploads_need() -> None:
    [server] = shown(PROJECT / "docs/how-to/run-behind-nginx.md", "nginx")
    assert "proxy_request_buffering off;" in server.text
    assert "client_max_body_size 0;" in server.text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_readme_or_the_index() -> None:
    readme, index = PROJECT / "README.md", PROJECT / "docs/README.md"
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (readme, index)
        for link in _LINK.findall(page.read_text())
    }
    assert [name(page) for page in PAGES if page != readme and page not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_titled_and_speak_of_no_particular_machine(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(("# ", "<!--"))
    assert str(PROJECT) not in text
    assert not re.search(r"(?<![\w.])/(work|home|root|tmp|Users)/", text)


def test_the_glossary_is_sorted_and_says_each_word_once() -> None:
    words = re.findall(r"^\| \*\*(.+?)\*\*", (PROJECT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words))
    assert len(words) > 20


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_prose_is_wrapped_at_one_width(page: Path) -> None:
    prose = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    unbreakable = re.compile(r"`[^`]*`|\[[^]]*\]\([^)]*\)")
    wide = [
        line
        for line in prose.splitlines()
        if len(unbreakable.sub("", line)) > 120 and not line.lstrip().startswith(("|", "#", "<", "!"))
    ]
    assert wide == []
