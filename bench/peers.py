"""The peers that are programs of others: rclone, copyparty and the tus server.

Each is used as its own documentation says, logs as little as it can, and has the settings that are
fastest for what is measured.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final, Literal

from bench.contestants import Contestant, program
from bench.samples import NotInstalledError

NPM_FOLDER: Final = Path(__file__).parent.parent / ".venv" / "npm"
"""Where packages of npm are installed: beside those of Python, never committed."""

TUS_PACKAGES: Final = ("@tus/server@2", "@tus/file-store@2")


class Rclone(Contestant):
    """`rclone serve` over a local folder, without its cache and without checksums.

    `s3` without keys: requests need no signature. A folder below the served one is a bucket.
    """

    def __init__(self, folder: Path, protocol: Literal["webdav", "s3"] = "webdav") -> None:
        super().__init__(folder)
        self._protocol = protocol

    def command(self) -> list[str]:
        words = [program("rclone"), "serve", self._protocol, str(self.data)]
        words += ["--addr", f"127.0.0.1:{self.port}", "--config", str(self.folder / "rclone.conf")]
        return [*words, "--no-checksum", "--no-modtime", "-q"]

    def environ(self) -> dict[str, str]:
        return {"XDG_CACHE_HOME": str(self.folder)}


class Copyparty(Contestant):
    """copyparty without hashing of uploads (its default is SHA-512)."""

    def command(self) -> list[str]:
        words = [sys.executable, "-m", "copyparty", "-q", "-i", "127.0.0.1", "-p", str(self.port)]
        return [*words, "--put-ck", "no", "--no-crt", "--no-thumb", "--wram", "-v", f"{self.data}::rwd"]

    def environ(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.folder), "HOME": str(self.folder), "PRTY_NO_TLS": "1"}


class Tus(Contestant):
    """`@tus/server` of npm with its file store, see `tus.mjs`.

    An upload is one request, the POST that creates it with its body ("creation with upload").
    """

    creates = True

    def command(self) -> list[str]:
        modules = NPM_FOLDER / "node_modules"
        if not (modules / "@tus" / "server").is_dir():
            raise NotInstalledError("@tus/server is not installed: scripts/bench --install")
        # A module finds its packages beside itself only.
        script = NPM_FOLDER / "tus.mjs"
        script.write_text(Path(__file__).with_name("tus.mjs").read_text())
        return [program("node"), str(script), str(self.landed), str(self.port)]

    def environ(self) -> dict[str, str]:
        return {"NODE_ENV": "production"}


def install() -> str:
    """Install the packages of npm; return a sentence on what was done, or why not."""
    NPM_FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        words = [program("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(NPM_FOLDER)]
        done = subprocess.run(
            [*words, *TUS_PACKAGES], capture_output=True, text=True, check=False, timeout=600
        )
    except (NotInstalledError, OSError, subprocess.TimeoutExpired) as error:
        return f"without @tus/server: {error}"
    if done.returncode:
        return f"without @tus/server: npm could not install it: {done.stderr.strip()[-500:]}"
    return f"installed {' and '.join(TUS_PACKAGES)} into {NPM_FOLDER}"
