"""A partial upload in a bucket as the body of a commit: claimed in its state, then published.

A commit that is refused leaves it as it was. On the server's loop.
"""

from __future__ import annotations

import dataclasses
import secrets

from gateway.domain import failpoints
from gateway.domain.digests import digest_field, named_digests
from gateway.errors import GatewayError
from gateway.storage.s3.encoding import with_digest
from gateway.storage.s3.partial_appender import PartialAppender
from gateway.storage.s3.parts import BufferedPart


class PartialBody(PartialAppender):
    """A partial upload that is appended to, and then published."""

    staged_at: str | None = None
    """Key of the private object that has all bytes; None where they are published themselves."""

    async def finish(self) -> None:
        """Settle; let no more bytes come; send the last part. Raises `Refusal`, `ChangedError`."""
        await self.settle()
        if self.length is None:
            await self.set_length(self.received)
        if self._part is not None and self._part.filled and self.multipart is not None:
            await self._send_part(self._part)
        await self._sender.wait_sent()
        self.claim = self.state.claim or secrets.token_hex(8)

    def kept_digest(self) -> dict[str, bytes]:
        """Return the digest of `--digest`, by its algorithm, where it is known."""
        kept = self._context.digest
        if kept is None or kept not in self.hashes.algorithms:
            return {}
        return {kept: self.hashes.digest_of_whole(kept)}

    async def publish(self, *, new: bool) -> str:
        """Claim the upload, publish the object; return its etag.

        With `new` it replaces none. Raises as `put_object`, and `ChangedError`.
        """
        target, objects = self.target, self._context.objects
        if (self.state.claim, self.state.path) != (self.claim, target.path):
            await self._write_state(claim=self.claim, path=target.path)
        failpoints.hit("before complete")
        if self.multipart is not None:
            tags = dict(enumerate(self.state.tags, start=1))
            tag = await objects.complete_multipart(target.key, self.multipart, tags, new=new)
        else:
            content = (self._part and self._part.buffer) or BufferedPart()
            params = with_digest(target.params, digest_field(named_digests(self.kept_digest())))
            tag = await objects.put_object(target.key, content, params, new=new)
        failpoints.hit("after complete")
        return tag

    async def withdraw(self) -> None:
        """Say that this commit publishes nothing. Raises `Refusal`, `ChangedError`."""
        self.claim = None
        if self.state.claim is not None:
            await self._write_state(claim=None)

    async def discard(self) -> None:
        """Keep everything: a commit that is refused leaves a partial upload as it was."""

    async def seal(self) -> None:
        """Make the bytes of a part of a concatenation readable: complete its multipart upload.

        Raises `Refusal`, `ChangedError`.
        """
        multipart, tags = self.multipart, dict(enumerate(self.state.tags, start=1))
        if self.state.sealed or multipart is None:
            return
        try:
            await self._context.objects.complete_multipart(self.target.key, multipart, tags, new=False)
        except GatewayError:
            if await self._context.objects.head_object(self.target.key) is None:
                raise  # else an earlier try, which was interrupted, has done it
        state = dataclasses.replace(self.state, sealed=True, multipart=None, tags=())
        await self._store_state(state, memoryview(b""))
