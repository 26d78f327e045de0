"""The pages for readers: their commands are run, by the rules of `tests/support/doc_pages.py`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.support import PROJECT
from tests.support.doc_pages import SHOWN_S3, Block, PageRunner, blocks
from tests.unit.docs.test_docs import RUN, name, shown

# -- doing what the pages say


INDEX: Final = PROJECT / "docs/README.md"


def _courses() -> dict[str, list[Path]]:
    """Return the pages by section of the index, in its order; README.md precedes the first section."""
    courses: dict[str, list[Path]] = {}
    for section in re.split(r"^## ", INDEX.read_text(), flags=re.MULTILINE)[1:]:
        linked = [INDEX.parent / target for target in re.findall(r"\]\(([\w./-]+\.md)\)", section)]
        courses[section.splitlines()[0]] = [page for page in linked if page in RUN]
    first = next(iter(courses.values()))
    first.insert(0, PROJECT / "README.md")
    others = [page for page in RUN if not any(page in listed for listed in courses.values())]
    return {**courses, **{name(page): [page] for page in others}}


COURSES: Final = {section: pages for section, pages in _courses().items() if pages}


@pytest.mark.slow
@pytest.mark.timeout(300)  # a page starts some servers; each step has a time-out of its own
@pytest.mark.parametrize("section", COURSES)
def test_pages_print_what_they_say_when_followed_in_their_order_in_one_folder(
    section: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pages = COURSES[section]
    needs_s3 = any(f"={SHOWN_S3}" in page.read_text() for page in pages)
    s3_url = request.getfixturevalue("s3").url if needs_s3 else SHOWN_S3
    for index, page in enumerate(pages):
        with PageRunner(tmp_path, s3_url) as reader:
            for block in blocks(page):
                try:
                    reader.follow(block)
                except AssertionError as error:
                    before = ", ".join(map(name, pages[:index])) or "nothing"
                    raise AssertionError(f"{name(page)}, after {before}: {error}") from error


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


# -- the pages among themselves
