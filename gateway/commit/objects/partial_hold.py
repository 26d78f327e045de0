"""Lets a whole partial upload in a bucket become a held upload.

In this order: the journal answers for the private object, and has the claim; the state of the partial
upload names the claim, so that no request of any gateway opens it; the held upload is in the journal;
the partial upload is gone. After a crash a claim without a held upload is withdrawn, and of a held
upload the rest of the partial one is removed.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Mapping, Sequence

from gateway.commit.objects.staging import ObjectStaging
from gateway.domain import failpoints
from gateway.domain.held import Held
from gateway.domain.model import Upload
from gateway.errors import GatewayError, UnknownOutcome
from gateway.storage.s3.partial_body import PartialBody
from gateway.storage.s3.partial_objects import HOLD_CLAIM


async def hold_partial(
    staging: ObjectStaging,
    upload: Upload,
    body: PartialBody,
    digests: Mapping[str, str],
    handlers: Sequence[str],
) -> Held:
    """Hold an upload whose private object is there. Raises `Refusal`, `ChangedError`: it goes on."""
    claim = f"{HOLD_CLAIM}{secrets.token_hex(8)}"
    with staging.ends.in_use(upload.id):
        await staging.record(upload.id, claim)
        try:
            body.claim = claim
            await body.write_claim(body.state.path)
            failpoints.hit("after hold claimed")
            kept = staging.held_body(upload, body.received, digests, handlers)
            held = await staging.holder.record(kept)
        except UnknownOutcome:  # a sweep finds it out, by the journal
            raise
        except BaseException:
            with contextlib.suppress(GatewayError, sqlite3.Error):  # else a sweep does so
                await body.withdraw()
                await staging.ends.forget(upload.id)
            raise
        failpoints.hit("before partial end")
    staging.ends.ended(upload.id)
    return held
