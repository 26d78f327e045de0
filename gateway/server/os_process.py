"""A process as the operating system sees it: its signals and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""The signals that a supervisor handles."""


def end_process(code: int) -> NoReturn:
    """End this process now, with all its locks, although threads of handlers may still run.

    Python would wait for these threads, which nothing can end. What is open is durable or worthless.
    Processes that scripts have begun with `multiprocessing` are terminated, as Python would do.
    """
    if "multiprocessing.process" in sys.modules:
        for child in sys.modules["multiprocessing.process"].active_children():
            child.terminate()
    flush_output()
    os._exit(code)


def flush_output() -> None:
    """Write what Python buffers of stdout and stderr; they may be closed (`>&-`), or have no reader."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()


def notify_service_manager(url: str) -> None:
    """Tell systemd, if it waits for that (`Type=notify`), that the gateway listens at `url`.

    The protocol is one datagram, see sd_notify(3). A name with `@` is one of the abstract namespace.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name:
        address = f"\0{name[1:]}" if name.startswith("@") else name
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(f"READY=1\nSTATUS=listening on {url}".encode(), address)


@contextlib.contextmanager
def received_signals() -> Iterator[socket.socket]:
    """Yield a socket on which the numbers of arriving signals can be read."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        reader.close()
        writer.close()


def reset_signals() -> None:
    """Undo the supervisor's signal handling in a process, which installs its own when it serves.

    Before its plugins are loaded a reload has nothing to do; the supervisor passes Ctrl-C on.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
