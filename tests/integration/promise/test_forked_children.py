"""Scripts that fork: their children keep nothing of the gateway, whether it lives or dies."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    complete_lines,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
    write_plugin,
)

pytestmark = pytest.mark.slow

POOL = """
name: pool
event: APIGW.OnFileUploaded
script: |
  import os, time
  from concurrent.futures import ProcessPoolExecutor
  from multiprocessing import Process
  async def pool(event, handle):
      if "pool" not in state:
          state["pool"] = ProcessPoolExecutor(2)
      for pid in {state["pool"].submit(os.getpid).result() for _ in range(8)}:
          with open("PIDS", "a") as log:
              log.write(f"{pid}\\n")
      ended = Process(target=time.sleep, args=(60,))
      ended.start()
      ended.terminate()
      ended.join()
      with open("PIDS.exited", "a") as log:
          log.write(f"{ended.exitcode}\\n")
"""


class Children:
    """The children of scripts, whose pids these write to a file."""

    def __init__(self, folder: Path) -> None:
        self._pids = folder / "pids"
        self._exited = folder / "pids.exited"
        text = POOL.replace("PIDS", str(self._pids))
        self._plugins = str(write_plugin(folder / "plugins", text))
        self.flags = ("--plugins", self._plugins)

    @property
    def pids(self) -> set[int]:
        return {int(line) for line in complete_lines(self._pids)}

    @property
    def exit_codes(self) -> list[str]:
        return complete_lines(self._exited)

    def end(self) -> None:
        """End all that have the command line of the gateway: some do no work, and write no pid."""
        while found := list(self._running()):
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(found)  # meanwhile one of them may have forked another

    def _running(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self._plugins in process.cmdline():
                    yield process


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Request it before the gateway, which must have ended when they are."""
    made = Children(tmp_path)
    yield made
    made.end()


def kept(pid: int) -> list[str]:
    """Return what a process has open of the gateway's folder, and its sockets that have a name."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = psutil.Process(pid).net_connections("all")
    named = [str(socket) for socket in sockets if any((socket.laddr, socket.raddr))]
    return [link for link in links if ".gateway" in link and "records.db" not in link] + named


async def test_a_gateway_whose_handlers_fork_starts_again_after_a_kill(
    children: Children, gateway_process: StartProcess
) -> None:
    gateway = gateway_process(*children.flags, forked=False)
    async with raw_connection(gateway) as waiting:
        await waiting.send(request_head("PUT", "/upload/never", "Content-Length: 9"))
        upload_id = (await put(gateway, "/upload/a")).json["upload_id"]
        await handlers_done(gateway, upload_id)
        assert children.pids
        assert children.exit_codes == ["-15"]  # the signal to a child has not reached the gateway
        assert {pid: kept(pid) for pid in children.pids} == {pid: [] for pid in children.pids}
        gateway.kill()
        assert await waiting.closed() == b""
    assert all(psutil.pid_exists(pid) for pid in children.pids)
    with pytest.raises(ConnectionRefusedError):
        await put(gateway, "/upload/b")

    again = gateway_process(*children.flags, forked=False)
    assert (await put(again, "/upload/b")).status == 201
    await wait_settled(again)


async def test_a_killed_process_of_several_whose_handlers_forked_comes_back(
    children: Children, gateway_process: StartProcess
) -> None:
    gateway = gateway_process("--processes", "2", *children.flags)
    upload_id = (await put(gateway, "/upload/a")).json["upload_id"]
    await handlers_done(gateway, upload_id)
    slot = gateway.directory / ".gateway" / "slots" / upload_id.rpartition("-")[2]
    killed = slot.read_text()
    os.kill(int(killed), signal.SIGKILL)
    await wait_until(lambda: slot.read_text() != killed)
    await wait_until(lambda: "serves again" in gateway.log())
    assert all(psutil.pid_exists(pid) for pid in children.pids)
    gateway.kill()
    gateway = gateway_process("--processes", "2", *children.flags)
    assert (await put(gateway, "/upload/b")).status == 201
