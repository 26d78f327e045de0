"""A partial upload in a bucket as the body of a commit: claimed in its state, then published.

A commit that is refused leaves it as it was. On the server's loop.
"""

from __future__ import annotations

import dataclasses
import secrets

from gateway.domain import failpoints
from gateway.domain.digests import digest_field, named_digests
from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.encoding import with_digest
from gateway.storage.s3.partial_appender import PartialAppender
from gateway.storage.s3.parts import BufferedPart
from gateway.storage.s3.retries import OutcomeUnknownError


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
        await self.write_claim(self.target.path)
        failpoints.hit("before complete")
        tag = await self._complete(new=new)
        failpoints.hit("after complete")
        return tag

    async def write_claim(self, path: str) -> None:
        """Let the state name the only commit, and its path. Raises `Refusal`, `ChangedError`."""
        if (self.state.claim, self.state.path) != (self.claim, path):
            await self._write_state(claim=self.claim, path=path)

    async def _complete(self, *, new: bool) -> str:
        """Make one object of all bytes, at `target`."""
        target, objects = self.target, self._context.objects
        if self.multipart is not None:
            tags = dict(enumerate(self.state.tags, start=1))
            return await objects.complete_multipart(target.key, self.multipart, tags, new=new)
        content = (self._part and self._part.buffer) or BufferedPart()
        params = with_digest(target.params, digest_field(named_digests(self.kept_digest())))
        return await objects.put_object(target.key, content, params, new=new)

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
        if self.multipart is not None:
            await self._seal()

    async def stage(self) -> None:
        """Make one private object of all bytes, which handlers read.

        Raises `Refusal`, `ChangedError`.
        """
        await self.finish()
        if not self.state.staged:
            await self._write_state(staged=True)
        if not self.state.sealed:
            failpoints.hit("before staged")
            await self._seal()
            failpoints.hit("after staged")

    async def _seal(self) -> None:
        await self.finish()
        if self._sent != len(self.state.tags):
            await self._write_state()
        try:
            await self._complete(new=False)
        except GatewayError as error:
            if await self._context.objects.head_object(self.target.key) is None:
                if not isinstance(error, OutcomeUnknownError):
                    raise
                raise Refusal(
                    "storage_unavailable", "it is not known whether the storage has the file: try again"
                ) from error
            # An earlier try, which was interrupted, has done it.
        state = dataclasses.replace(self.state, sealed=True, multipart=None, tags=())
        await self._store_state(state, memoryview(b""))
        self._sent = 0
        self.release_memory()
