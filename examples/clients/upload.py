#!/usr/bin/env python3
"""Uploads a file, and goes on where an interrupted attempt ended. The standard library suffices.

    upload.py FILE URL          for example: upload.py film.mp4 http://127.0.0.1:8080/upload/film.mp4

UPLOAD_TOKEN is sent as a bearer token. The address of the unfinished upload is kept in FILE.upload, so
that another run goes on with it. The protocol is draft-ietf-httpbis-resumable-upload: a POST creates the
upload, HEAD tells how much has come, PATCH appends the rest.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT = 60.0
LONGEST_WAIT = 30.0
GONE = {404, 410}
TRY_AGAIN = {408, 423, 429, 500, 502, 503, 504, 507}

Answer = tuple[int, http.client.HTTPMessage, bytes]


class Refused(Exception):
    """The server refused the upload, and said why."""


def ask(method: str, url: str, headers: dict[str, str], body: Any = None) -> Answer:
    """Send one request over a connection of its own. Raises `OSError`, `HTTPException`."""
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.netloc, timeout=TIMEOUT)
    if token := os.environ.get("UPLOAD_TOKEN"):
        headers = {"Authorization": f"Bearer {token}", **headers}
    with contextlib.closing(connection):
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def create(file: Path, url: str) -> str:
    """Create the upload; return its address."""
    length = str(file.stat().st_size)
    headers = {"Upload-Complete": "?0", "Upload-Length": length, "Content-Length": "0"}
    status, fields, body = ask("POST", url, headers)
    if status != 201:
        raise _error(status, fields, body)
    return fields["Location"]


def look(address: str) -> tuple[int, bool] | None:
    """Return how many bytes have come, and whether the file is stored.

    None where the upload is not known any more.
    """
    status, fields, body = ask("HEAD", address, {})
    if status in GONE:
        return None
    if "Upload-Offset" not in fields:
        raise _error(status, fields, body)
    return int(fields["Upload-Offset"]), fields["Upload-Complete"] == "?1"


def append(file: Path, address: str, offset: int) -> bytes:
    """Send the bytes from `offset` on; return what the server answers to the whole file."""
    with file.open("rb") as content:
        content.seek(offset)
        headers = {
            "Content-Type": "application/partial-upload",
            "Content-Length": str(file.stat().st_size - offset),
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1",
        }
        status, fields, body = ask("PATCH", address, headers, content)
    if status not in {200, 201}:
        raise _error(status, fields, body)
    return body


def _error(status: int, fields: http.client.HTTPMessage, body: bytes) -> Exception:
    """Return `OSError` where the upload can go on later, else `Refused`."""
    text = body.decode(errors="replace").strip()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = json.loads(body)["message"]
    message = f"{status}: {text}"
    other_offset = status == 409 and fields["Upload-Complete"] == "?0"
    return OSError(message) if status in TRY_AGAIN or other_offset else Refused(message)


def upload(file: Path, url: str) -> bytes:
    """Upload a file, however often the connection breaks. Raises `Refused`."""
    note = Path(f"{file}.upload")
    wait = 1.0
    while True:
        try:
            address = note.read_text() if note.exists() else ""
            found = look(address) if address else None
            if found is None:
                address, found = create(file, url), (0, False)
                note.write_text(address)
            offset, is_stored = found
            answer = b"it is stored already\n" if is_stored else append(file, address, offset)
        except (OSError, http.client.HTTPException) as error:
            print(f"interrupted ({error}): next attempt in {wait:g} s", file=sys.stderr)
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)
        except Refused:
            note.unlink(missing_ok=True)
            raise
        else:
            note.unlink()
            return answer


def main() -> int:
    """Upload the file that the arguments name; return the exit status."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(upload(Path(sys.argv[1]), sys.argv[2]).decode(), end="")
    except Refused as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
