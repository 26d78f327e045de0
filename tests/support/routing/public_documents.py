"""OpenAPI documents of other projects, out of their packages on npm: pinned, and fetched once."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class PublicDocument:
    """A file of a package. `digest` is the SHA-512 of the package, as npm's `dist.integrity` has it."""

    package: str
    version: str
    member: str
    digest: str
    operations: int
    skip: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name that a file can have, with the suffix of the document."""
        return f"{self.package.rpartition('/')[2]}-{self.version}{Path(self.member).suffix}"


DOCUMENTS: Final = {
    "github": PublicDocument(
        "@octokit/openapi",
        "23.0.2",
        "generated/api.github.com.json",
        "pV8M7L9GY23AybNvTmo2nyjmpmnt6+2sRE/tqr0ZLQcPS4lnw7u5eZGNmwRNkBC3D7gZXbFx5AHzLUVRBXGDhg==",
        1222,
        ("/repos/{owner}/{repo}/compare/{base}...{head}",),
    ),
    "galaxy": PublicDocument(
        "@scalar/galaxy",
        "0.6.12",
        "dist/3.1.yaml",
        "406+1YbTRAj1nSSUPLzHOCjQ5mIZbCKUlK2ycgn5JqZJziYXoFrIdBIPdaVh9Sk/33rpdULs3uFaMWT7jBgR7g==",
        10,
    ),
    "trains": PublicDocument(
        "@readme/oas-examples",
        "8.2.2",
        "3.1/yaml/train-travel.yaml",
        "uytlvlylq3zpemG0h1R7ijlMBCajqXU0VpMI1Iw+j92s77Y/oT6pBf3BZN0lYl0WIGTh7POM4Jdu7L14eCzwXQ==",
        7,
    ),
    "blockfrost": PublicDocument(
        "@blockfrost/openapi",
        "0.1.93",
        "openapi.yaml",
        "gC0NOZk+9MSa5aK846gbcU12VqbZwzVpZmgO6314e9ExJo9g3QsMmniplewOhI5fJQVHR0A7lgCVqk/pbK1iKA==",
        129,
    ),
    "directus": PublicDocument(
        "@directus/specs",
        "15.2.0",
        "dist/openapi.json",
        "JauzDjbFbeoZ9AceWh/pbG/U2R2/5V8jP7Ldp/bpSPbsDu392uXEUQGTfWkowLqgRXtjmGHP5vIZoUJpjqaFPw==",
        136,
    ),
}


def public_document(document: PublicDocument) -> Path:
    """Return the file of a document, fetched if need be. Test processes that start together wait."""
    assert shutil.which("npm"), "npm is missing: scripts/test installs it (Debian: apt-get install npm)"
    folder = Path(sys.prefix) / "openapi"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / document.name
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            _fetch(document, file)
    return file


def _fetch(document: PublicDocument, file: Path) -> None:
    """Fetch a package, compare its digest, and take one file out of it."""
    command = ["npm", "pack", "--silent", f"{document.package}@{document.version}"]
    done = subprocess.run(
        command, cwd=file.parent, check=True, capture_output=True, text=True, timeout=100
    )
    package = file.parent / done.stdout.splitlines()[-1]
    content = package.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == document.digest
    with tarfile.open(package) as archive:
        member = archive.extractfile(f"package/{document.member}")
        assert member is not None
        partial = file.with_suffix(".partial")
        partial.write_bytes(member.read())
    partial.rename(file)
    package.unlink()
