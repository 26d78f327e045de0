"""Tens of thousands of hostile paths through a real socket: nothing outside the tree ever changes."""

from __future__ import annotations

import asyncio
import os
import random
import string
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawConnection, get, leftovers, raw_connection, request_head
from tests.support.recorders import write_handler

pytestmark = pytest.mark.both_paths

CONNECTIONS = 8
BODY = b"fuzz"

ALPHABET = ("%", "25", "2e", "2f", ".", "/", "\\", "a")
"""What traversal is spelled with."""

WORDS = (
    "../", "..", "./", "//", "%2e%2e%2f", "%2e%2e/", "..%2f", "%252e%252e%252f", "%c0%ae%c0%ae/",
    "%c0%af", "%e0%80%af", "%u002e", "..;/", "..\\", "%5c..", "%00", "%0a", "%0d%0a", "%7f", "%c2%85",
    "%ef%bc%8f", "%e2%80%a8", "%ed%a0%80", "%ff", "%", "%2", "%zz", "é", "日本", "․․/", "／",
    "outside/", "canary", "data/", "upload/", ".gateway/", "/etc/passwd", "a", "x" * 256, "~root", "?",
    "*", "|", "$(id)", "'", '"', "`", "C:", "link/", "up/", "-/",
)  # fmt: skip
"""Spellings that have fooled servers: overlong UTF-8, double encoding, full-width dots, links."""

ANSWERS = {200, 201, 400, 403, 404, 409, 503}


UPWARDS = ("../", "%2e%2e/", ".%2e/", "..%2f", "..%5c", "%252e%252e/", "..//", "a/../../")
ENDS = ("canary", "outside/canary", "outside/new", "new", ".gateway/new", "..")


def hostile(count: int, seed: int) -> list[str]:
    """Return paths: from the alphabet alone, from the words and random characters, and upwards."""
    dice = random.Random(seed)
    kinds = (_letters, _words, _upwards)
    return [kinds[number % 3](dice) for number in range(count)]


def _letters(dice: random.Random) -> str:
    return "".join(dice.choices(ALPHABET, k=dice.randint(1, 14)))


def _words(dice: random.Random) -> str:
    odd = chr(dice.choice((dice.randint(0x21, 0x7E), dice.randint(0xA1, 0xD7FF))))
    parts = [*dice.choices(WORDS, k=dice.randint(1, 6)), odd]
    dice.shuffle(parts)
    return "".join(parts)


def _upwards(dice: random.Random) -> str:
    before = dice.choice(("", "", "a/", "link/", "%2f"))
    return before + "".join(dice.choices(UPWARDS, k=dice.randint(1, 4))) + dice.choice(ENDS)


def sendable(path: str) -> str:
    """Leave out what would end the request line: then it would be another request, not a path."""
    return path.replace("#", "").replace(" ", "")


@pytest.fixture
async def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    """A gateway in whose tree links lead up and out; a header can write the path."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_bytes(b"sings")
    (tmp_path / "canary").write_bytes(b"sings")
    (tmp_path / "data/upload").mkdir(parents=True)
    (tmp_path / "data/upload/link").symlink_to(tmp_path / "outside")
    (tmp_path / "data/upload/up").symlink_to("../..")
    (tmp_path / "data/link").symlink_to(tmp_path / "outside")
    script = """
        from urllib.parse import unquote
        event['path'] = event.get('X-Path', event['path'])
        if 'X-Quoted-Path' in event:
            event['path'] = unquote(event['X-Quoted-Path'], errors='surrogateescape')
    """
    return await start_gateway(plugins=write_handler(tmp_path / "plugins", script), durability="none")


def surroundings(tmp_path: Path) -> dict[str, bytes | str]:
    """Return all that lies around DIRECTORY: names, kinds, contents; links are not followed."""
    found: dict[str, bytes | str] = {}
    for folder, folders, files in os.walk(tmp_path):
        here = Path(folder)
        if here == tmp_path:
            folders.remove("data")
        for name in files:
            found[str(here / name)] = (here / name).read_bytes()
        found |= {str(here / name): "folder" for name in folders}
    return found


def only_what_was_sent(data: Path) -> bool:
    """Tell whether every file below DIRECTORY, the state apart, is one that was uploaded."""
    for folder, folders, files in os.walk(data):
        if Path(folder) == data:
            folders.remove(".gateway")
        for name in files:
            if (Path(folder) / name).read_bytes() not in {b"", BODY}:
                return False
    return True


def request(number: int, target: str, *lines: str) -> bytes:
    """Return an upload; most are empty, for a refusal then leaves the connection open."""
    body = BODY if number % 20 == 0 else b""
    return (
        request_head("PUT", sendable(target), f"Content-Length: {len(body)}", *map(sendable, lines))
        + body
    )


async def fire(gateway: Gateway, requests: Sequence[bytes]) -> Counter[int]:
    """Send requests over a few connections at once, anew where one was closed; count the answers."""
    waiting = deque(requests)
    statuses: Counter[int] = Counter()

    async def work() -> None:
        while waiting:
            async with raw_connection(gateway) as connection:
                await use(connection)

    async def use(connection: RawConnection) -> None:
        while waiting:
            await connection.send(waiting.popleft())
            answer = await connection.answer()
            statuses[answer.status] += 1
            if answer.headers.get("Connection") == "close":
                return

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return statuses


async def nothing_gets_out(gateway: Gateway, tmp_path: Path, requests: Sequence[bytes]) -> Counter[int]:
    """Fire, and compare what is around DIRECTORY, and in the state folder, with what was there."""
    state = tmp_path / "data/.gateway"
    around, names = surroundings(tmp_path), sorted(os.listdir(state))
    statuses = await fire(gateway, requests)
    assert surroundings(tmp_path) == around
    assert sorted(os.listdir(state)) == names
    assert leftovers(tmp_path / "data") == []
    assert only_what_was_sent(tmp_path / "data")
    assert statuses.total() == len(requests)
    assert statuses[201] > len(requests) / 100, "too few paths were good ones: the test is blind"
    assert set(statuses) <= ANSWERS, statuses
    assert (await get(gateway, "/-/ready")).status == 200
    return statuses


def in_targets(count: int, seed: int) -> list[bytes]:
    """Return uploads to the paths; in three of four, what is not ASCII is percent-encoded."""
    targets = (
        f"/upload/{path if n % 4 == 0 else quote(path, safe=string.punctuation)}"
        for n, path in enumerate(hostile(count, seed))
    )
    return [request(n, target) for n, target in enumerate(targets)]


def in_headers(count: int, seed: int) -> list[bytes]:
    """Return uploads whose header the handler copies into the path, as it is or decoded."""
    names = ("X-Path", "X-Quoted-Path")
    paths = enumerate(hostile(count, seed))
    return [request(n, "/upload/x", f"{names[n % 2]}: {path}") for n, path in paths]


async def test_no_path_leaves_the_tree(gateway: Gateway, tmp_path: Path) -> None:
    await nothing_gets_out(gateway, tmp_path, in_targets(1500, seed=1))


async def test_no_path_that_a_handler_copies_leaves_the_tree(gateway: Gateway, tmp_path: Path) -> None:
    statuses = await nothing_gets_out(gateway, tmp_path, in_headers(700, seed=2))
    assert statuses[503] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_path_of_very_many_leaves_the_tree(gateway: Gateway, tmp_path: Path) -> None:
    await nothing_gets_out(gateway, tmp_path, in_targets(6000, seed=3))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_copied_path_of_very_many_leaves_the_tree(gateway: Gateway, tmp_path: Path) -> None:
    await nothing_gets_out(gateway, tmp_path, in_headers(6000, seed=4))
