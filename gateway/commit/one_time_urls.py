"""An upload whose URL is good for one upload uses it up, or gives it back.

The rule: used before the upload is published, given back only where it never will be. Blocking; for
whoever commits, to a directory or to a bucket.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.domain.model import Upload
from gateway.storage.local.one_time_marks import OneTimeMarks


def use_up(once: OneTimeMarks, upload: Upload) -> bool:
    """Use up the one-time URL of an upload; return whether it had one. `once.sync` makes it durable.

    Raises Refusal `used_up`, `expired` (a day late), `OSError`.
    """
    grant = upload.grant
    if grant is None or grant.once is None:
        return False
    once.consume(grant.once, upload.id, grant.expires)
    return True


def give_back(once: OneTimeMarks, uploads: Iterable[Upload]) -> bool:
    """Give the one-time URLs of uploads back; return whether there were any to be made durable."""
    given = False
    for upload in uploads:
        grant = upload.grant
        if grant is not None and grant.once is not None:
            once.release(grant.once, upload.id)
            given = True
    return given
