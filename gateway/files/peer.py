"""A gateway elsewhere that has a file: who it is, what is asked of it, how it answers.

One rule: a holder that cannot be reached is nobody's fault: `PeerUnavailable`; one that has
another file now says so: `Superseded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from gateway.domain.addresses import Address, host_port
from gateway.domain.model import Identity
from gateway.errors import PeerUnavailable, Superseded

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""How long a holder may send nothing while it hands a file over."""

PIECE_BYTES: Final = 1 << 20
PATIENCE: Final = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
)


@dataclass(frozen=True, slots=True)
class FileLocation:
    """Where the file of an upload is: who has it, how he is called, which very file it is."""

    holder: Address
    scheme: str
    path: str
    identity: Identity | None
    ours: bool

    @property
    def authority(self) -> str:
        """The holder as it stands in a URL."""
        return host_port(*self.holder)

    @property
    def very(self) -> dict[str, str]:
        """What tells the holder which file is meant, even when its journal has forgotten."""
        one = self.identity
        if one is None:
            return {}
        return {"path": self.path, "is": f"{one.device}-{one.inode}-{one.size}-{one.mtime_ns}"}


def url_of(upload_id: str, place: FileLocation) -> URL:
    """Return where the file of an upload is handed out."""
    base = f"{place.scheme}://{place.authority}/-/files/{upload_id}"
    return URL(f"{base}?{urlencode(place.very)}" if place.very else base, encoded=True)


async def check(answer: aiohttp.ClientResponse, place: FileLocation) -> None:
    """Raise what a status means: the file is another one, or the holder has troubles of its own."""
    if answer.status in {404, 410}:
        raise Superseded(f"{place.path} is no longer what was uploaded, says its holder")
    if answer.status in {401, 403}:
        raise PeerUnavailable(
            f"{place.authority} does not know us: give all nodes the same"
            " --installation-key-file and set their clocks"
        )
    if answer.status >= 300:
        raise PeerUnavailable(f"{place.authority} answers {answer.status}")


async def read(answer: aiohttp.ClientResponse, place: FileLocation) -> bytes:
    """Return about a piece of the file, nothing at its end. Cut short, it is `PeerUnavailable`."""
    pieces, size = [], 0
    try:
        while size < PIECE_BYTES and (some := await answer.content.readany()):
            pieces.append(some)
            size += len(some)
    except (aiohttp.ClientError, TimeoutError, OSError) as fault:
        raise away(place, fault) from fault
    return b"".join(pieces)


def away(place: FileLocation, fault: BaseException) -> PeerUnavailable:
    """Say that a holder could not be reached."""
    return PeerUnavailable(
        f"the holder of the file, {place.authority}, cannot be reached:"
        f" {str(fault) or type(fault).__name__}"
    )
