"""Plugin photos: serves the page: its files from the folder `page`, and its settings.

Nothing is inline and nothing comes from other hosts: the policy allows this gateway and the storage that
a page sends bytes to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from photo_rules import SIGNED_PATH, Rules

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

Answer = tuple[int, Any, dict[str, str]]


def _read(folder: Path) -> dict[str, tuple[bytes, str, str]]:
    """Read the page's files: name -> content, type, entity tag."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.suffix in _TYPES and not file.name.startswith("."):
            content = file.read_bytes()
            found[file.name] = (
                content,
                _TYPES[file.suffix],
                f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            )
    return found


FILES: Final = _read(Path(__file__).parent / "page")


async def page(request: Any, config: Mapping[str, Any], sign_url: Any) -> Answer:
    """Return a file of the page, `settings.json` included; 304 if the client has it."""
    name = request.resources.get("asset", "index.html")
    if name == "settings.json":
        rules = Rules.of(config)
        told = {"types": rules.types, "maxBytes": rules.max_bytes, "signedPath": SIGNED_PATH}
        return 200, told, {"Cache-Control": "no-store"}
    if name not in FILES:
        return 404, {"error": "not_found", "message": "the page has no such file"}, {}
    content, content_type, tag = FILES[name]
    headers = {
        "Content-Type": content_type,
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy(await _storage(sign_url)),
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if tag in request.headers.get("If-None-Match", ""):
        return 304, b"", headers
    return 200, content, headers


def policy(storage: str) -> str:
    """Return the Content-Security-Policy; `storage` is the origin that bytes go to, or empty."""
    beyond = f" {storage}" if storage else ""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' blob:{beyond}",
            f"connect-src 'self'{beyond}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


async def _storage(sign_url: Any) -> str:
    """Return the origin of the URLs of the storage, empty if they lead to this gateway."""
    parts = urlsplit(await sign_url("GET", "/thumbs/origin", expires=60))
    return "" if parts.path.startswith(SIGNED_PATH) else f"{parts.scheme}://{parts.netloc}"
