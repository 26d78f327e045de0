"""nginx as a contestant: as a store, as a file server, as a proxy and behind one.

It has the settings that are fastest for what is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bench.contestants import Contestant, program


class Nginx(Contestant):
    """nginx with its dav module: a body goes to a private file that is renamed; nothing is synced.

    `workers` is 1 beside a single process under small requests, `auto` for large bodies. A buffer of
    1 MiB was the fastest of 16 KiB to 4 MiB for large bodies, and makes no odds for small ones.
    """

    def __init__(
        self, folder: Path, workers: Literal["1", "auto"], certificate: Path | None = None
    ) -> None:
        super().__init__(folder)
        self._workers = workers
        self._certificate = certificate
        self.scheme = "https" if certificate else "http"

    def command(self) -> list[str]:
        file = self.folder / "nginx.conf"
        file.write_text(f"""\
daemon off;
user root;
worker_processes {self._workers};
pid {self.folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_max_body_size 0;
  client_body_buffer_size 1m;
  client_body_temp_path {self.data}/incoming;
  proxy_temp_path {self.folder}/proxy;
  fastcgi_temp_path {self.folder}/fastcgi;
  uwsgi_temp_path {self.folder}/uwsgi;
  scgi_temp_path {self.folder}/scgi;
{self._more()}
  server {{
    listen 127.0.0.1:{self.port}{self._tls()}
    location /upload/ {{ root {self.data}; dav_methods PUT; create_full_put_path on; }}
{self._places()}
  }}
}}
""")
        return [program("nginx"), "-p", str(self.folder), "-e", "stderr", "-c", str(file)]

    def _tls(self) -> str:
        if self._certificate is None:
            return ";"
        file = self._certificate
        return f" ssl;\n    ssl_certificate {file};\n    ssl_certificate_key {file};"

    def _more(self) -> str:
        return ""

    def _places(self) -> str:
        return "    location /refused/ { return 401; }"


class NginxStatic(Nginx):
    """nginx as a file server at its fastest, with a stat for each request as in the gateway."""

    def _more(self) -> str:
        return "  sendfile on;\n  tcp_nopush on;"


class NginxListing(Nginx):
    """nginx that lists a folder as JSON: all of it in one response, without types and digests."""

    def _more(self) -> str:
        return "  autoindex on;\n  autoindex_format json;"


class NginxRefusing(Nginx):
    """nginx that refuses every upload with 401."""

    prefix = "/refused/"


class NginxUpstream(Nginx):
    """What proxies call: nginx that stores a PUT, and answers 4 KiB of JSON under `/upload/json/`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "1")

    def _places(self) -> str:
        text = '{"text": "' + "x" * 4082 + '"}'
        return f"    location /upload/json/ {{ default_type application/json; return 200 '{text}'; }}"


class NginxProxy(Nginx):
    """nginx as a proxy that streams, keeping connections to the upstream; one worker."""

    prefix = "/proxy/"

    def __init__(self, folder: Path, upstream: Contestant) -> None:
        super().__init__(folder, "1")
        self.landed = upstream.landed
        self._upstream = upstream.port

    def _more(self) -> str:
        server = f"server 127.0.0.1:{self._upstream};"
        return f"  upstream behind {{ {server} keepalive 64; keepalive_requests 100000000; }}"

    def _places(self) -> str:
        return """\
    location /proxy/ {
      proxy_pass http://behind/upload/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_request_buffering off;
    }"""
