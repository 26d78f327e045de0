"""The log of `gateway serve` and `gateway status` on a real terminal: short, coloured, without ids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.harness import curl
from tests.support.terminal import COLOUR, Terminal, terminal

pytestmark = pytest.mark.slow

PLAIN = {"NO_COLOR": "1"}


def url_of(server: Terminal) -> str:
    return server.match(r"listening on (http://127\.0\.0\.1:\d+)\r\n")[1]


async def upload(server: Terminal, url: str) -> str:
    """Store a file and ask for one that is not there; return the lines of both requests."""
    await curl("-T", str(PROJECT / "README.md"), f"{url}/upload/README.md")
    await curl(f"{url}/missing")
    text = server.until("/missing")
    return text[text.index("listening on") :]


async def test_the_log_is_short_and_coloured_and_a_status_is_too(tmp_path: Path) -> None:
    flags = ("--directory", str(tmp_path))
    with terminal("serve", *flags, "--port", "0") as server:
        url = url_of(server)
        assert f"open {url}/ in a browser" in server.text
        requests = await upload(server, url)
        assert re.search(
            r"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m PUT \x1b\[32m201\x1b\[0m /upload/README.md", requests
        )
        assert "GET \x1b[33m404\x1b[0m /missing" in requests
        assert "_id=" not in requests
        with terminal("status", *flags) as status:
            assert status.end() == 0
        assert f"at {url}, up" in status.text
        assert COLOUR.search(status.text)
        with terminal("status", *flags, environ=PLAIN) as status:
            assert status.end() == 0
        assert not COLOUR.search(status.text)


async def test_without_colours_lines_are_plain_and_debug_shows_ids(tmp_path: Path) -> None:
    flags = ("--directory", str(tmp_path), "--port", "0", "--log-level", "debug")
    with terminal("serve", *flags, environ=PLAIN) as server:
        requests = await upload(server, url_of(server))
        line = (
            r"\d\d:\d\d:\d\d gateway\.access: PUT 201 /upload/README\.md \d+\.\d kB \d+ ms .*upload_id="
        )
        assert re.search(line, requests)
        assert not COLOUR.search(server.text)
