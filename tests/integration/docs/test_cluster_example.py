"""The cluster of `examples/cluster`: started by its script, used as its page says, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import PROJECT
from tests.support.doc_pages import blocks
from tests.support.harness import GatewayProcess, get, put, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") is None, reason="nginx is missing"
    ),
]

START = PROJECT / "examples/cluster/start"
PORTS = [8080, 8081, 8082, 8091, 8092, *(first + n for first in (4220, 6220, 8220) for n in (1, 2, 3))]
NODES = {"gateway-1": 8081, "gateway-2": 8082, "worker-1": 8091, "worker-2": 8092}
PAGE = PROJECT / "docs/how-to/from-one-machine-to-many.md"


def free(digit: str) -> bool:
    """Whether all ports can be had with this digit in front."""
    with contextlib.ExitStack() as held:
        for port in PORTS:
            one = held.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", int(f"{digit}{port}")))
            except OSError:
                return False
    return True


class Place(GatewayProcess):
    """A server that somebody else has started."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"


class Example:
    """A running example."""

    def __init__(self, folder: Path, digit: str) -> None:
        self.data = folder / "cluster"
        self.digit = digit
        self._said = folder / "said"
        command = [str(START), str(self.data), "--ports", digit]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                command, stdout=said, stderr=said, cwd=folder, start_new_session=True
            )

    def said(self) -> str:
        return self._said.read_text()

    def place(self, port: int) -> Place:
        return Place(int(f"{self.digit}{port}"))

    def kill(self, name: str) -> None:
        os.kill(int((self.data / f"{name}.pid").read_text()), signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.data / f"{name}.log").read_text(errors="replace")

    def ran(self) -> set[str]:
        """The paths whose handler has run, wherever."""
        logs = "".join(self.log(name) for name in NODES)
        return set(re.findall(r"sha256 \w{64} of (/upload/[\w.-]+)", logs))

    def left(self) -> list[psutil.Process]:
        """The processes that know the example's folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(self.data) in word for word in process.cmdline()):
                    found.append(process)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal all of them, as a terminal and a service manager do."""
        os.killpg(self.process.pid, number)
        return self.process.wait(60)


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    shutil.copy(PROJECT / "README.md", tmp_path)
    example = Example(tmp_path, next(digit for digit in "12345" if free(digit)))
    yield example
    if example.process.poll() is None:
        example.stop()
    for process in example.left():
        process.kill()


async def started(example: Example) -> str:
    """Wait until all are ready; return the token of the line to try."""

    def tried() -> re.Match[str] | None:
        assert example.process.poll() is None, example.said()
        return re.search(r"^try: (curl .*X-Auth-Token: (\S+)'.*)$", example.said(), re.MULTILINE)

    found = await wait_until(tried)
    line: str = found[1]
    done = await asyncio.create_subprocess_shell(
        f"{line} -sS -o {example.data}/answer -w %{{http_code}}",
        stdout=subprocess.PIPE,
        cwd=example.data.parent,
    )
    assert (await done.communicate())[0] == b"201"
    return str(found[2])


async def upload(example: Example, token: str, names: list[str]) -> None:
    """Upload through nginx, each until a gateway says that it has it, as the page tells clients to."""
    waiting = iter(names)
    front = example.place(8080)

    async def one() -> None:
        for name in waiting:
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    answer = await put(front, f"/upload/{name}", b"x" * 5000, f"X-Auth-Token: {token}")
                    if answer.status in {200, 201}:
                        break
                await asyncio.sleep(0.1)  # a client's pause between two tries

    await asyncio.gather(*(one() for _ in range(8)))


async def handled(example: Example, names: list[str]) -> None:
    """Wait until the handler has run for all of them."""
    await wait_until(lambda: example.ran() >= {f"/upload/{name}" for name in names})


async def counted(example: Example, token: str, metric: str, *names: str) -> list[float]:
    """Add up a metric of each node."""
    sums = []
    for name in names:
        place = example.place(NODES[name])
        answer = await get(place, "/-/metrics", f"X-Auth-Token: {token}")
        values = re.findall(rf"^{metric}\{{.*\}} (\S+)$", answer.body.decode(), re.MULTILINE)
        sums.append(sum(map(float, values)))
    return sums


async def test_the_example_spreads_work_survives_kills_and_leaves_no_process(example: Example) -> None:
    token = await started(example)
    rounds = 0
    runs = stored = [0.0]
    # Which node takes an event is a race, and nginx leaves a gateway out for a while after a failed
    # connection: one of them may have nothing of a round.
    while min(*runs, *stored) == 0 and rounds < 10:
        names = [f"first-{rounds}-{n}" for n in range(60)]
        await upload(example, token, names)
        await handled(example, names)
        runs = await counted(example, token, "gateway_handler_runs_total", *NODES)
        stored = await counted(example, token, "gateway_uploads_total", "gateway-1", "gateway-2")
        rounds += 1
    assert min(*runs, *stored) > 0, (runs, stored)
    assert sum(stored) == rounds * 60 + 1

    second = [f"second-{n}" for n in range(60)]
    uploading = asyncio.create_task(upload(example, token, second))
    example.kill("gateway-1")
    example.kill("worker-1")
    await uploading
    await handled(example, second)
    assert await asyncio.to_thread(example.stop, signal.SIGINT) == 0, example.said()
    assert example.left() == []


@pytest.fixture
def taken() -> Iterator[str]:
    """A digit whose first port is taken; the others need not be free."""
    for digit in "54321":
        with contextlib.suppress(OSError):  # a connection of another test may have it
            server = socket.create_server(("127.0.0.1", int(f"{digit}8080")))
            break
    with server:
        yield digit


def test_a_port_that_is_taken_is_told_before_anything_starts(tmp_path: Path, taken: str) -> None:
    command = [str(START), str(tmp_path / "cluster"), "--ports", taken]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{taken}8080 is already in use; try --ports" in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_a_missing_program_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    # A copy that stands in no checkout finds nothing but what the PATH has.
    copy = shutil.copytree(START.parent, tmp_path / "a/b/cluster") / "start"
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        ["bash", str(copy)], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "gateway is missing: scripts/venv test" in done.stderr


def shown() -> str:
    return "".join(block.text for block in blocks(PAGE) if block.language == "console")


@pytest.mark.parametrize("said", ["examples/cluster/start", "kill -9 $(cat cluster-data/gateway-1.pid)"])
def test_the_page_and_the_script_say_the_same(said: str) -> None:
    assert said in shown()
    assert said in START.read_text()
