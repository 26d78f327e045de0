"""API keys: for programs, limited to methods, a path prefix, a rate and a time.

What is kept of a key is its SHA-256. A key has 256 random bits, so its digest is looked up as it is:
how long that takes tells something about the digest of what was sent, which its sender knows, and
nobody can make a key for a digest that is partly known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from gateway.auth.principals import API_KEY
from gateway.auth.tokens import new_token, token_digest
from gateway.domain import paths
from gateway.domain.api_routes import OBJECTS_PREFIX
from gateway.domain.template_segments import LITERAL, REST, Segments
from gateway.domain.units import RequestRate
from gateway.errors import Refusal
from gateway.limits import FixedWindowCounters

KEY_PREFIX: Final = "ugk_"
"""What every key begins with, so that scanners for secrets find it: `ugk_[A-Za-z0-9_-]{43}`."""

_API_PREFIX: Final = "/-/"


def new_api_key() -> str:
    """Make a key: 256 random bits behind `KEY_PREFIX`."""
    return KEY_PREFIX + new_token()


@dataclass(frozen=True, slots=True)
class KeyScope:
    """What a key is for: methods, and the paths below `prefix`. Empty and None: all of them.

    `prefix` is compared segment by segment with the decoded path of the request; with a slash at its
    end it covers what is below a folder, else a file or folder of that name too.
    """

    prefix: str | None = None
    methods: tuple[str, ...] = ()

    def check(self, methods: Iterable[str], raw_path: str) -> None:
        """Refuse a request that the key is not for. Raises `Refusal("forbidden")`.

        `methods` are those that the request may be taken for: the key must be for all of them.
        `/-/objects/<path>` counts as `<path>`. Other paths of the gateway are not checked here: what
        they tell a key, if anything, is theirs to decide.
        """
        if raw_path.startswith(f"{OBJECTS_PREFIX}/"):
            raw_path = raw_path.removeprefix(OBJECTS_PREFIX)
        elif raw_path.startswith(_API_PREFIX):
            return
        if self.methods and not all(map(self._allows, methods)):
            allowed = ", ".join(self.methods)
            raise Refusal("forbidden", f"this key is for other methods: {allowed}")
        if self.prefix is not None and not _covers(self.prefix, raw_path):
            raise Refusal("forbidden", "this key is for other paths")

    def may_reach(self, method: str, segments: Segments) -> bool:
        """Tell whether a key may send `method` to some of the paths of a template."""
        covers = self.prefix is None or _covers_part(self.prefix, segments)
        return covers and (not self.methods or self._allows(method))

    def _allows(self, method: str) -> bool:
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)


def check_prefix(prefix: str) -> str:
    """Return a prefix that a key may have. Raises `ValueError`."""
    if not prefix.startswith("/"):
        raise ValueError("must begin with a slash, as the paths of requests do")
    if prefix.startswith((_API_PREFIX, f"/{paths.STATE_FOLDER}/")) or prefix == "/-":
        raise ValueError("is a place of the gateway itself")
    if prefix != "/":
        try:
            paths.check_path(prefix.removesuffix("/"))
        except Refusal as refusal:
            raise ValueError(refusal.message) from None
    return prefix


def _covers(prefix: str, raw_path: str) -> bool:
    """Tell whether a prefix has a path, still encoded. A path that may be read in two ways has none.

    An upstream may decode once more, or leave out a segment's parameters (`..;x`).
    """
    try:
        segments = paths.decode(raw_path)
    except Refusal:
        return False
    *folders, name = segments
    if any(map(_is_ambiguous, folders)) or (name and _is_ambiguous(name)):
        return False
    wanted, below = _parts_of(prefix)
    return segments[: len(wanted)] == wanted and len(segments) >= len(wanted) + below


def _covers_part(prefix: str, segments: Segments) -> bool:
    """Tell whether a prefix has a path that matches a template."""
    wanted, below = _parts_of(prefix)
    for name, segment in zip(wanted, segments, strict=False):
        if segment.kind == REST:
            return True
        if segment.kind == LITERAL and segment.text != name:
            return False
    return len(segments) >= len(wanted) + below or (bool(segments) and segments[-1].kind == REST)


def _parts_of(prefix: str) -> tuple[tuple[str, ...], bool]:
    """Return the segments of a prefix, and whether it covers only what is below them."""
    wanted = tuple(prefix[1:].removesuffix("/").split("/")) if prefix != "/" else ()
    return wanted, prefix.endswith("/")


def _is_ambiguous(name: str) -> bool:
    forms = (name, name.partition(";")[0], unquote(name))
    return any(paths.broken_rule(form) is not None for form in forms)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are Unix times; `expires` None: never.

    `rate` limits its requests, `bytes_per_day` the bytes that it uploads.
    """

    name: str
    scope: KeyScope
    rate: RequestRate | None
    bytes_per_day: int | None
    created: float
    expires: float | None
    revoked: float | None = None
    last_used: float | None = None

    @property
    def principal(self) -> dict[str, Any]:
        """The principal of its requests."""
        return {"name": self.name, "kind": API_KEY}

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


class KeySecret(NamedTuple):
    """One of the secrets of a key: its SHA-256 in hex, and until when it counts (None: for ever).

    There are several while a key is rotated.
    """

    digest: str
    key: ApiKey
    until: float | None

    def is_valid(self, now: float) -> bool:
        """Tell whether it counts now."""
        return self.key.state(now) == "active" and (self.until is None or now < self.until)


class ApiKeys:
    """The keys as a process knows them: in memory, so that no request waits for the file.

    Used on the server's event loop; a thread replaces the secrets and takes the uses.
    """

    def __init__(self, counters: FixedWindowCounters) -> None:
        self._counters = counters
        self._secrets: Mapping[str, KeySecret] = {}
        self._uses: dict[str, float] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no key at all: then no request needs to be looked at."""
        return not self._secrets

    def replace(self, secrets: Iterable[KeySecret]) -> None:
        """Know these from now on."""
        self._secrets = {secret.digest: secret for secret in secrets}

    def find(self, tokens: Iterable[str]) -> ApiKey | None:
        """Return the key of the first of `tokens` that is one and counts now."""
        for token in tokens:
            if token.startswith(KEY_PREFIX) and (key := self.find_digest(token_digest(token))):
                return key
        return None

    def find_digest(self, digest: str) -> ApiKey | None:
        """Return the key of a secret with this SHA-256, if it counts now."""
        secret, now = self._secrets.get(digest), time.time()
        if secret is None or not secret.is_valid(now):
            return None
        self._uses[secret.key.name] = now
        return secret.key

    def count_request(self, key: ApiKey) -> None:
        """Count a request of a key, over all processes. Raises `Refusal("too_many_requests")`."""
        rate = key.rate
        if rate is None:
            return
        counter = ("key", key.name, rate.requests, rate.seconds)  # another rate begins a new window
        count, seconds_left = self._counters.increment(counter, rate.seconds)
        if count > rate.requests:
            headers = {"Retry-After": str(max(math.ceil(seconds_left), 1))}
            message = f"this key may send at most {rate} requests: try again later"
            raise Refusal("too_many_requests", message, headers)

    def take_uses(self) -> Mapping[str, float]:
        """Return when keys were used since the last call, by name."""
        uses, self._uses = self._uses, {}
        return uses.copy()
