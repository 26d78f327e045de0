"""The pages for readers: every command, plugin and link is tried, by the rules of `tests/pages.py`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support import PROJECT
from tests.support.doc_pages import SHOWN_S3, Block, PageRunner, blocks, pages

PAGES: Final = pages()
LANGUAGES: Final = {"sh", "console", "yaml", "json", "text", "nginx", "mermaid"}
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


# -- doing what the pages say


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name)
def test_whoever_follows_a_page_gets_what_it_says(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    needs_s3 = f"={SHOWN_S3}" in page.read_text()
    s3_url = request.getfixturevalue("s3").url if needs_s3 else SHOWN_S3
    with PageRunner(tmp_path, s3_url) as reader:
        for block in blocks(page):
            reader.follow(block)


@pytest.mark.parametrize("page", RUN, ids=name)
def test_every_yaml_block_is_valid(page: Path, tmp_path: Path) -> None:
    with PageRunner(tmp_path) as reader:
        for block in blocks(page):
            if block.language == "yaml" or "mkdir -p my-plugins" in block.text:
                reader.follow(block)


def test_a_page_that_lies_is_found_out(tmp_path: Path) -> None:
    true = [
        Block("sh", "echo one two\n", 1, ""),
        Block("text", "one ...\n", 2, "sh"),
        Block("sh", "export A=1\n", 3, ""),
        Block("sh", 'test "$A" = 1\n', 4, ""),
    ]
    lies = [
        Block("text", "three\n", 5, "sh"),
        Block("sh", "false\n", 6, ""),
        Block("yaml", "name: nameless\n", 7, ""),
        Block("yaml", "# p/a.yaml\nname: a\nconfig: {}\nsurplus: 1\n", 8, ""),
    ]
    with PageRunner(tmp_path) as reader:
        for block in true:
            reader.follow(block)
        for lie in lies:
            with pytest.raises(AssertionError, match=f"line {lie.line}:"):
                reader.follow(lie)


# -- looking at what cannot be done here


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_language_that_is_looked_at(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    fences = re.findall(r"^[ \t]*```", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page)), "a fence is indented, unclosed or odd"


def test_the_readme_names_the_two_commands_and_they_exist() -> None:
    [serve, upload, *_] = shown(PROJECT / "README.md", "console")
    assert serve.text == "./scripts/serve\n"
    assert upload.text.startswith("curl -T README.md ")
    assert "./scripts/test" in (PROJECT / "README.md").read_text()
    assert (PROJECT / "scripts/serve").is_file()
    assert (PROJECT / "scripts/test").is_file()


def test_commands_for_another_machine_use_what_the_project_has() -> None:
    said = "".join(block.text for page in PAGES for block in shown(page, "console"))
    assert "docker build -t upload-gateway .\n" in said
    assert (PROJECT / "Dockerfile").is_file()
    scripts = re.findall(r"\./(scripts/\w+)", said)
    plugins = re.findall(r"/(plugins/[\w-]+)\b", said)
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


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    [server] = shown(PROJECT / "docs/how-to/run-behind-nginx.md", "nginx")
    text = re.sub(r"^ *(ssl_certificate.*|server_name.*)$", "", server.text, flags=re.MULTILINE)
    text = text.replace("listen 443 ssl", "listen 127.0.0.1:18443")
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{text}\n}}\n")
    done = subprocess.run(
        ["nginx", "-t", "-p", tmp_path, "-c", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_nginx_page_has_what_large_uploads_need() -> None:
    [server] = shown(PROJECT / "docs/how-to/run-behind-nginx.md", "nginx")
    assert "proxy_request_buffering off;" in server.text
    assert "client_max_body_size 0;" in server.text


# -- the pages among themselves


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
