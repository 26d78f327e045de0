"""What the cases are made of: amounts, and the files that are sent."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.contestants import program
from bench.sources import make_source

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """Amounts: bytes, seconds, counts."""

    big: int = 1024 * MIB
    part: int = 128 * MIB
    middle: int = 512 * MIB
    seconds: int = 2
    refusals: int = 200
    listed: int = 100_000
    rounds: int = 5


FULL = Sizes()
QUICK = Sizes(
    big=256 * MIB, part=32 * MIB, middle=128 * MIB, seconds=1, refusals=50, listed=20_000, rounds=2
)


class Sources:
    """Sources of bodies, created when first used; files in `folder`, which should be a tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = cache(self._file)
        self.certificate = cache(self._certificate)

    def _file(self, size: int) -> Path:
        return make_source(self.folder / str(size), size)

    def _certificate(self) -> Path:
        """Return a file with a self-made certificate and its key."""
        file = self.folder / "certificate.pem"
        words = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        words += ["-subj", "/CN=127.0.0.1", "-keyout", "-", "-out", "-"]
        file.write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
        return file
