"""S3 room: which multipart uploads this machine has begun, so that none outlives a crash.

One rule: a note is a small file in the state folder, written when an upload is begun, removed when
it is complete or aborted. It is a help, not a promise: what is lost with a machine is found by its
age. Blocking.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("gateway.storage")


class UnfinishedMultipart(NamedTuple):
    """An unfinished multipart upload: our upload id, the bucket, the key, and S3's own id of it."""

    upload_id: str
    bucket: str
    key: str
    multipart: str


class MultipartLog:
    """The folder of notes. All processes of a gateway share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, note: UnfinishedMultipart) -> None:
        """Keep a note. A disk that refuses is logged: the upload itself needs none."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / note.upload_id).write_text(json.dumps(note), encoding="utf-8")
        except OSError as fault:
            log.warning("no note of a multipart upload could be kept: %s", fault.strerror)

    def remove(self, upload_id: str) -> None:
        """Forget one; that there is none is no fault."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / upload_id)

    def entries(self) -> Iterator[UnfinishedMultipart]:
        """Iterate over what is noted; what cannot be read is removed."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._folder):
                try:
                    yield UnfinishedMultipart(
                        *json.loads((self._folder / name).read_text(encoding="utf-8"))
                    )
                except FileNotFoundError:
                    continue
                except (ValueError, TypeError):
                    self.remove(name)
