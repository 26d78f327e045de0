"""Children that are forked keep nothing of the gateway, unless they are processes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import PROJECT

PROGRAM = """
import contextlib, json, os, signal, socket, sys
from pathlib import Path
from gateway.server import forking

state = Path(sys.argv[1])
(state / "slots").mkdir(parents=True)
noticed, wakeup = socket.socketpair()
wakeup.setblocking(False)
signal.set_wakeup_fd(wakeup.fileno())
signal.signal(signal.SIGTERM, lambda *_: None)
owner = socket.socket(socket.AF_UNIX)
owner.bind(str(state / "owner-0.sock"))
line, _other_end = socket.socketpair()
own, port = socket.socketpair(), socket.create_server(("127.0.0.1", 0))
descriptors = {
    "lock": os.open(state / "slots" / "all", os.O_RDWR | os.O_CREAT),
    "port": port.fileno(),
    "accepted": socket.create_connection(port.getsockname()).detach(),
    "owner": owner.fileno(),
    "line": line.fileno(),
    "records": os.open(state / "records.db-wal", os.O_RDWR | os.O_CREAT),
    "file of a script": os.open(state.parent / "script", os.O_RDWR | os.O_CREAT),
    "pipe of a script": os.pipe()[0],
    "socket pair of a script": own[0].fileno(),
}

def child(fork):
    reader, writer = os.pipe()
    if fork() == 0:
        taken = [n for n, fd in descriptors.items() if os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"]
        ends_by_signal = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        blocked = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        os.write(writer, json.dumps([taken, ends_by_signal, blocked]).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reader, 4096))

forking.withhold_socket(line.fileno())
with forking.withhold(state):
    found = [child(os.fork), child(forking.fork_worker_process)]
found.append(child(os.fork))
print(json.dumps(found))
"""


def run_program(tmp_path: Path) -> Any:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data" / ".gateway")]
    return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=PROJECT).stdout)


def test_a_child_of_a_script_keeps_nothing_and_a_process_of_the_gateway_keeps_all(
    tmp_path: Path,
) -> None:
    by_script, by_supervisor, after = run_program(tmp_path)
    taken = ["lock", "port", "accepted", "owner", "line"]
    assert by_script == [taken, True, []]
    assert by_supervisor == [[], False, []]
    assert after == [[], False, []]
