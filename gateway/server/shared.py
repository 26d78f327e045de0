"""The shared: what exists once for a directory, however many processes serve it.

The rule: whoever opens them, the supervisor or the only process, makes nothing that needs a thread
or a loop; the processes get a `ProcessContext` each and find all else done: the directory is
theirs, the token and the installation key are there, the port is bound.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from gateway.auth import authenticator as auth
from gateway.auth.installation import installation_keys
from gateway.commit.disk_space import ReservationTable
from gateway.domain.addresses import host_port
from gateway.http.sockets import listening_socket
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory, directory_lock


@dataclass(slots=True, frozen=True)
class ProcessContext:
    """What one process is given: its slot, how many there are, and what all of them share.

    `address` is what is bound: port 0 has become a real one. `token` was made by this very start,
    to be shown once.
    """

    slot: int
    count: int
    socket: socket.socket
    address: tuple[str, int]
    reservations: ReservationTable
    scheme: str
    token: str | None = None

    @property
    def others(self) -> tuple[int, ...]:
        """The slots of the other processes."""
        return tuple(slot for slot in range(self.count) if slot != self.slot)

    @property
    def url(self) -> str:
        """Where a person on this machine finds the gateway."""
        return f"{self.scheme}://{host_port(*self.address)}"


class SharedResources:
    """Opens what the processes share, and gives them their seats."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened = contextlib.ExitStack()
        self.reservations = ReservationTable(settings.processes)
        self._socket: socket.socket
        self._address: tuple[str, int]
        self._token: str | None = None

    def open(self) -> None:
        """Take the directory and bind the port. Raises `ConfigError`, and nothing stays open."""
        settings = self._settings
        with contextlib.ExitStack() as opened:
            StateDirectory(settings.state).prepare()
            lock = directory_lock(settings.state)
            lock.acquire()
            opened.callback(lock.release)
            if settings.auth == "token" and not auth.tokens_of(settings):
                self._token = auth.ensure_token(settings.state)
            installation_keys(settings)
            self._socket = listening_socket(settings)
            opened.callback(self._socket.close)
            host, port = self._socket.getsockname()[:2]
            self._address = str(host), int(port)
            self._opened = opened.pop_all()

    def process(self, slot: int) -> ProcessContext:
        """Return what the process of this slot gets."""
        scheme = "https" if self._settings.tls_cert else "http"
        return ProcessContext(
            slot,
            self._settings.processes,
            self._socket,
            self._address,
            self.reservations,
            scheme,
            self._token,
        )

    def close_port(self) -> None:
        """Give the port up: once the processes have done so too, connections are refused."""
        self._socket.close()

    def close(self) -> None:
        """Give the port and the directory up."""
        self._opened.close()
