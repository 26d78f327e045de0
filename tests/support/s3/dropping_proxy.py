"""A TCP proxy before an S3 server that drops the responses to some requests, which were carried out.

Each connection carries one request at a time; a dropped response ends its connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit


class ResponseDroppingProxy:
    """Relays to `url`. `drop_responses` says which."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (str(parts.hostname), int(parts.port or 80))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.count = 0
        self._method = self._key = b""
        self._then: Callable[[], None] | None = None

    def drop_responses(
        self, method: bytes, count: int, key: bytes, then: Callable[[], None] | None = None
    ) -> None:
        """Drop the responses to the next `count` requests of `method` for `key` that publish."""
        self._method, self._key, self.count, self._then = method, key, count, then

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._to)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        lost = threading.Event()
        threading.Thread(target=self._back, args=(server, client, lost), daemon=True).start()
        try:
            while piece := client.recv(1 << 16):
                if self.count > 0 and self._publishes(piece):
                    self.count -= 1
                    lost.set()
                server.sendall(piece)
        except OSError:
            pass
        finally:
            _end(server)

    def _publishes(self, piece: bytes) -> bool:
        line = piece.partition(b"\r\n")[0]
        if not line.startswith(self._method + b" ") or self._key not in line:
            return False
        return (b"uploadId=" in line) == (self._method == b"POST")

    def _back(self, server: socket.socket, client: socket.socket, lost: threading.Event) -> None:
        try:
            while piece := server.recv(1 << 16):
                if lost.is_set() and not piece.startswith(b"HTTP/1.1 100"):
                    if self._then is not None:
                        self._then()
                    break
                client.sendall(piece)
        except OSError:
            pass
        finally:
            _end(client)


def _end(sock: socket.socket) -> None:
    """End a connection, also for a thread that reads from it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
