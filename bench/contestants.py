"""The contestants: how a server is set up, started and stopped; the gateway and the bare handlers.

Each one logs as little as it can and has the settings that are fastest for what is measured; where that
is a choice, its docstring says so.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Literal, Self

from bench.processes import Server, free_port
from bench.samples import NotInstalledError

Durability = Literal["none", "full"]

QUICKSTART = Path(__file__).parent.parent / "plugins" / "quickstart"

HANDLERS = {
    "uploading": """\
name: admitMost
event: APIGW.OnFileUploading
authorization: keep
script: |
  async def admitMost(event, handle):
      if event["path"].endswith(".forbidden"):
          await handle.terminate(code=403, output="no")
""",
    "uploaded": """\
name: countAll
event: APIGW.OnFileUploaded
script: |
  async def countAll(event, handle):
      state["uploads"] = state.get("uploads", 0) + 1
""",
    "refusing": """\
name: admitNone
event: APIGW.OnFileUploading
script: |
  async def admitNone(event, handle):
      await handle.terminate(code=403, output="no")
""",
}
"""Handlers that do next to nothing, so that what is measured is calling them."""


PROXY = """\
name: forward
upstreams: ["127.0.0.1:{port}"]
proxy: {{path: "/proxy/{{rest:path}}"}}
target: {{path: "/upload/{{rest}}"}}
"""
"""A route without scripts to an upstream."""


def program(name: str) -> str:
    """Return the path of an installed program; raise NotInstalledError where there is none."""
    beside = Path(sys.executable).parent / name
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    program_path = str(beside) if beside.exists() else shutil.which(name, path=path)
    if program_path is None:
        raise NotInstalledError(f"{name} is not installed: scripts/bench installs what is needed")
    return program_path


class Contestant:
    """A server on 127.0.0.1. `PUT <url><name>` stores the body at `landed / name`.

    A context manager: started on entering, ended on leaving.
    """

    prefix = "/upload/"
    scheme = "http"
    creates = False
    """Whether an upload is a POST that creates it, of the tus protocol, and not a PUT."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.landed = self.data / "upload"
        self.landed.mkdir(parents=True)
        self.port = free_port()

    def command(self) -> list[str]:
        """Return the command that starts the server; write what files it needs."""
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """Return what is added to the environment."""
        return {}

    @property
    def url(self) -> str:
        """Return the URL before a name."""
        return f"{self.scheme}://127.0.0.1:{self.port}{self.prefix}"

    def __enter__(self) -> Self:
        self.server = Server(self.command(), self.port, self.folder / "log", self.environ())
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()


class Ours(Contestant):
    """The gateway, one process unless said. `handlers` names some of `HANDLERS`; `flags` are more."""

    starter: tuple[str, ...] = ("-m", "gateway")
    """What Python runs: it takes the arguments of `gateway`."""

    def __init__(
        self,
        folder: Path,
        durability: Durability,
        handlers: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        processes: int = 1,
    ) -> None:
        super().__init__(folder)
        self._flags = ("--durability", durability, "--processes", str(processes), *flags)
        for name in handlers:
            self._plugin(name, HANDLERS[name])

    def _plugin(self, name: str, text: str) -> None:
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / f"{name}.yaml").write_text(text)
        if "--plugins" not in self._flags:
            self._flags += ("--plugins", str(plugins))

    def command(self) -> list[str]:
        words = [sys.executable, *self.starter, "serve", "--directory", str(self.data)]
        return [*words, "--port", str(self.port), "--log-level", "warning", *self._flags]


class OursAsStarted(Contestant):
    """The gateway as `scripts/serve` starts it: the quickstart plugins, all else by default."""

    def command(self) -> list[str]:
        words = [sys.executable, "-m", "gateway", "serve", "--directory", str(self.data)]
        return [*words, "--plugins", str(QUICKSTART), "--port", str(self.port)]


class OursTls(Ours):
    """The gateway behind its own TLS."""

    scheme = "https"

    def __init__(self, folder: Path, certificate: Path) -> None:
        flags = ("--tls-cert", str(certificate), "--tls-key", str(certificate))
        super().__init__(folder, "none", flags=flags)


class OursProxy(Ours):
    """The gateway as a proxy: a routing plugin without scripts, `/proxy/...` to the upstream."""

    prefix = "/proxy/"

    def __init__(self, folder: Path, upstream: Contestant) -> None:
        super().__init__(folder, "none")
        self.landed = upstream.landed
        self._plugin("proxy", PROXY.format(port=upstream.port))


class Bare(Contestant):
    """One of the handlers of `bench.bare`, one process."""

    def __init__(self, folder: Path, kind: Literal["loop", "aiofiles"] = "loop") -> None:
        super().__init__(folder)
        self._kind = kind

    def command(self) -> list[str]:
        script = str(Path(__file__).with_name("bare.py"))
        return [sys.executable, script, self._kind, str(self.landed), str(self.port)]
