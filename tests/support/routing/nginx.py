"""A real nginx for proxy tests: a process of its own on free ports of the loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.harness import TIMEOUT
from tests.support.ports import reserved_ports

CONFIG = """
daemon off;
master_process off;
error_log stderr notice;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  default_type text/plain;
  client_body_temp_path {folder}/t1;
  proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port};
    add_header X-Connection $connection always;
    root {folder}/files;
    location / {{ }}
    location /packed/ {{
      alias {folder}/files/; gzip on; gzip_types text/plain; gzip_proxied any; gzip_min_length 1;
    }}
    location /trickle/ {{ alias {folder}/files/; limit_rate 200k; }}
    location /small/ {{ client_max_body_size 1k; dav_methods PUT; root {folder}/stored; }}
    location /dav/ {{ dav_methods PUT DELETE; create_full_put_path on; root {folder}/stored; }}
    location /upload/ {{
      proxy_pass http://127.0.0.1:{gateway}; proxy_http_version 1.1; proxy_request_buffering {buffering};
      proxy_set_header Host $http_host; {gateway_headers}
    }}
    location /ws {{
      proxy_pass http://127.0.0.1:{gateway}; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; {gateway_headers}
    }}
    location /silent/ {{ proxy_pass http://127.0.0.1:{silent}; }}
    location /echo {{ return 200 "$request_method $request_uri $http_x_forwarded_for"; }}
  }}
}}
"""

_FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"


class Nginx:
    """A running nginx: `files` is served, `stored` is what was put under `/dav/`."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.files = folder / "files"
        self.stored = folder / "stored"
        self.address = ("127.0.0.1", port)
        self.authority = f"127.0.0.1:{port}"
        self._process = process

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(TIMEOUT)


@contextlib.contextmanager
def nginx(
    folder: Path, gateway: int = 1, *, buffering: str = "off", forwards: bool = True
) -> Iterator[Nginx]:
    """Start nginx with everything it writes below `folder`.

    `gateway` is the port behind `/upload/`, and behind `/ws` for WebSocket connections. With `forwards`
    it tells for whom it asks.
    """
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    for name in ("files", "stored/dav", "stored/small"):
        (folder / name).mkdir(parents=True)
    # `silent` takes connections, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent, reserved_ports(1) as (port,):
        config = folder / "nginx.conf"
        values = {
            "folder": folder,
            "port": port,
            "silent": silent.getsockname()[1],
            "gateway": gateway,
            "buffering": buffering,
            "gateway_headers": _FORWARDED if forwards else "",
        }
        config.write_text(CONFIG.format(**values))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)], stderr=log)
        server = Nginx(folder, port, process)
        try:
            wait_for_port(port, process, folder / "log")
            yield server
        finally:
            server.kill()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server that was just started takes connections."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)  # its port is the only sign of it being ready
    raise AssertionError(f"nginx did not start:\n{log.read_text()}")
