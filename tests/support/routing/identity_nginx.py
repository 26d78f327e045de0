"""nginx that asks an authentication service about each request before a gateway gets it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.ports import reserved_ports
from tests.support.routing.nginx import wait_for_port

CONFIG = """
daemon off;
master_process off;
error_log stderr notice;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1;
  proxy_temp_path {folder}/t2;
  fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4;
  scgi_temp_path {folder}/t5;
  {more}
  server {{
    listen 127.0.0.1:{port};
{locations}
  }}
}}
"""

SESSIONS = {"ann": ("ann", "staff,admins"), "bob": ("bob", "staff")}
"""What the cookie `session` stands for: a user and the groups."""


class _Verify(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        session = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        user = SESSIONS.get("" if session is None else session.value)
        self.send_response(200 if user else 401)
        if user:
            self.send_header("Remote-User", user[0])
            self.send_header("Remote-Groups", user[1])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def identity_nginx(folder: Path, locations: str, more: str = "") -> Iterator[str]:
    """Start both, and yield the URL of nginx.

    `locations` are those of its server, `more` stands in front of it: `AUTH` in them stands for the
    authentication service.
    """
    folder.mkdir(parents=True)
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    service = ThreadingHTTPServer(("127.0.0.1", 0), _Verify)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    auth = f"127.0.0.1:{service.server_address[1]}"
    with reserved_ports(1) as (port,):
        config, log = folder / "nginx.conf", folder / "log"
        text = CONFIG.format(
            folder=folder,
            port=port,
            more=more.replace("AUTH", auth),
            locations=locations.replace("AUTH", auth),
        )
        config.write_text(text)
        with log.open("wb") as errors:
            process = subprocess.Popen([program, "-p", str(folder), "-c", str(config)], stderr=errors)
        try:
            wait_for_port(port, process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()
            service.shutdown()
            service.server_close()
