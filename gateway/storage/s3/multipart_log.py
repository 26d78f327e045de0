"""The multipart uploads that this machine has begun, so that a sweep finds them after a crash.

An entry is a small file in the state folder, written when an upload is begun, removed when it is
complete or aborted. It is a help, not a promise: an upload without an entry is found by its age.
Blocking.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")


class UnfinishedMultipart(NamedTuple):
    """An unfinished multipart upload: the gateway's upload id, bucket, key, and S3's id of it."""

    upload_id: str
    bucket: str
    key: str
    multipart: str


class MultipartLog:
    """The folder of entries. All processes of a gateway share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, entry: UnfinishedMultipart) -> None:
        """Write an entry. A disk that refuses is logged: the upload itself needs none."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._folder / entry.upload_id).write_text(json.dumps(entry), encoding="utf-8")
        except OSError as error:
            log.warning(
                "a multipart upload could not be recorded, the sweep will find it by its age: %s",
                error.strerror,
                extra=event("multipart.unrecorded", upload_id=entry.upload_id),
            )

    def remove(self, upload_id: str) -> None:
        """Remove an entry, if there is one."""
        with contextlib.suppress(OSError):
            os.unlink(self._folder / upload_id)

    def entries(self) -> Iterator[UnfinishedMultipart]:
        """Iterate over the entries; one that cannot be read is removed."""
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
