"""Small uploads without a task: what is taken, what is left, and how each one ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth, TokenVerifier
from gateway.auth.request import RequestHead
from gateway.auth.signed_urls import StoredUrls
from gateway.auth.tokens import token_digest
from gateway.commit.local_writer import LocalWriter
from gateway.commit.quotas.quotas import Quotas
from gateway.commit.quotas.writer import QuotaWriter
from gateway.domain.model import RECEIVED, Stored, Upload
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.domain.quotas import Quota, QuotaLimits
from gateway.domain.units import RequestRate
from gateway.endpoints.inflight import Inflight
from gateway.endpoints.short_path import ShortExchange
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.outcomes import UploadOutcomes
from gateway.endpoints.uploads.short_put import ShortUploads
from gateway.endpoints.uploads.upload_rates import UploadRates
from gateway.errors import ClientDisconnected, Refusal, Terminated, UnknownOutcome
from gateway.http.responses import SmallResponse
from gateway.limits import FixedWindowCounters
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings, Token
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.metrics import Metrics

ALICE = Token(name="alice", sha256=token_digest("secret-a"))
MATCH = PathMatch("/upload/x", {"filepath": "x"})
CONTENT = b"hello"
URLS = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "http://gateway.example")


class Exchange:
    """One request, and what became of it."""

    def __init__(self, *lines: tuple[str, str], content: bytes = CONTENT, query: str = "") -> None:
        headers = CIMultiDict([("Host", "localhost"), ("Content-Length", str(len(content))), *lines])
        self.head = RequestHead("PUT", f"/upload/x{query}", headers, "192.0.2.1")
        self.facts = self.head.facts
        self.body = content
        self.log_fields: dict[str, object] = {}
        self.began = 0
        self.ends: list[SmallResponse | Exception] = []

    def context(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def begin(self) -> None:
        self.began += 1

    def respond(self, response: SmallResponse) -> None:
        self.ends.append(response)

    def fail(self, error: Exception) -> None:
        self.ends.append(error)


class Writer:
    """A storage whose commits end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Upload, bytes, Callable[[Stored | Exception], None]]] = []

    def submit(self, upload: Upload, content: bytes, done: Callable[[Stored | Exception], None]) -> None:
        self.waiting.append((upload, content, done))

    def end(self, error: Exception | None = None) -> None:
        [(upload, content, done)] = self.waiting
        stored = Stored(upload.id, upload.path, len(content), "text/plain", False, {})
        done(error or stored)


class NoShadows:
    """No shadows."""

    def beside_default(self, _: str, upload: Upload) -> None:
        pass


class Uncounted:
    """Quotas that no upload counts for."""

    def count(self, _: Upload) -> bool:
        return False


class Handlers:
    """Handlers of OnFileUploading that decide when the test says so."""

    def __init__(self, count: int = 0) -> None:
        self.count = count
        self.received = False
        self.deciding: list[Callable[[Exception | None], None]] = []
        self.uploads: list[Upload] = []
        self.cancelled = 0
        self.failed: list[str] = []
        self.shadows = NoShadows()

    def replaces_authorization(self) -> bool:
        return self.count > 0

    def has_handlers(self, event: str) -> bool:
        return self.received if event == RECEIVED else self.count > 0

    def submit_admission(self, upload: Upload, done: Callable[[Exception | None], None]) -> Handlers:
        self.uploads.append(upload)
        self.deciding.append(done)
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def notify_upload_failed(self, _: Upload, reason: str, __: int) -> None:
        self.failed.append(reason)


class Gateway:
    def __init__(
        self, handlers: int = 0, verifier: TokenVerifier | None = None, **settings: Any
    ) -> None:
        self.hooks, self.writer, self.metrics = Handlers(handlers), Writer(), Metrics()
        self.inflight = Inflight()
        parsed, hooks = Settings.model_validate(settings), cast(Hooks, self.hooks)
        auth, marks = Auth(parsed, (ALICE,), verifier=verifier), cast(OneTimeMarks, None)
        admission = Admission(parsed, auth, hooks, self.inflight, marks)
        outcomes = UploadOutcomes(self.inflight, self.metrics, hooks, URLS)
        counting = QuotaWriter(cast(LocalWriter, self.writer), cast(Quotas, Uncounted()))
        self.uploads = ShortUploads(admission, cast(LocalWriter, self.writer), counting, outcomes, 0)

    def take(self, exchange: Exchange) -> bool:
        return self.uploads.take(cast(ShortExchange, exchange), MATCH)

    def counted(self) -> set[str]:
        return {values[0] for values in self.metrics.uploads._counts}

    def untouched(self) -> bool:
        return not (len(self.inflight) or self.counted() or self.writer.waiting or self.hooks.uploads)


def test_an_upload_whose_file_handlers_will_see_is_left_untouched() -> None:
    gateway = Gateway(handlers=1)
    gateway.hooks.received = True
    assert not gateway.take(Exchange())
    assert gateway.untouched()


def test_an_upload_above_its_rate_is_counted_once_and_refused_here() -> None:
    gateway, refusals = Gateway(), list[str]()
    rate = Quota(QuotaLimits(requests=RequestRate(1, 60.0)), per="address")
    rates = UploadRates([rate], FixedWindowCounters(), refusals.append)
    gateway.uploads.admission = replace(gateway.uploads.admission, rates=rates)
    taken = [Exchange(), Exchange()]
    assert all(map(gateway.take, taken))
    [refusal] = taken[1].ends
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusals) == ("too_many_requests", ["requests"])
    assert (len(gateway.inflight), len(gateway.writer.waiting)) == (1, 1)


def test_a_small_upload_is_stored_and_answered_once() -> None:
    gateway, exchange = Gateway(), Exchange(("Content-Type", "text/plain"))
    assert gateway.take(exchange)
    assert (exchange.began, exchange.ends, len(gateway.inflight)) == (1, [], 1)
    [(upload, content, _)] = gateway.writer.waiting
    assert (upload.id, upload.path, content) == (exchange.head.facts.upload_id, "/upload/x", CONTENT)
    gateway.writer.end()
    [response] = exchange.ends
    assert isinstance(response, SmallResponse)
    assert (response.status, response.headers["Location"]) == (201, f"/-/uploads/{upload.id}")
    assert (len(gateway.inflight), gateway.counted()) == (0, {"stored"})
    assert exchange.log_fields == {"bytes": 5}


@pytest.mark.parametrize(
    "exchange",
    [
        Exchange(("If-Match", "*")),
        Exchange(("Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==")),
        Exchange(content=b"x" * 65_537),
    ],
    ids=["a condition", "a digest", "a large body"],
)
def test_what_needs_more_than_the_commit_is_left_untouched(exchange: Exchange) -> None:
    gateway = Gateway()
    assert not gateway.take(exchange)
    assert gateway.untouched()
    assert exchange.began == 0


@pytest.mark.parametrize(
    ("exchange", "settings", "code"),
    [
        (Exchange(("Content-Range", "bytes 0-4/9")), {}, "bad_range"),
        (Exchange(("If-None-Match", '"x"')), {}, "precondition_failed"),
        (Exchange(("Digest", "x")), {}, "bad_digest"),
        (Exchange(("X-Amz-Meta-a_b", "1")), {}, "bad_request"),
        (Exchange(query="?a=%ff"), {}, "bad_request"),
        (Exchange(), {"auth": "token"}, "unauthorized"),
        (Exchange(), {"max_bytes": 4}, "too_large"),
        (Exchange(query="?X-Gateway-Signature=1"), {}, "bad_signature"),
    ],
)
def test_what_the_ordinary_path_refuses_is_left_untouched(
    exchange: Exchange, settings: dict[str, Any], code: str
) -> None:
    gateway = Gateway(**settings)
    with pytest.raises(Refusal) as caught:
        gateway.take(exchange)
    assert caught.value.code == code
    assert gateway.untouched()
    assert exchange.began == 0


def test_a_client_with_its_share_of_uploads_is_left_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.endpoints.inflight.MAX_UPLOADS", 2)
    gateway, first, second = Gateway(), Exchange(), Exchange()
    assert gateway.take(first)
    with pytest.raises(Refusal, match="uploads in flight"):
        gateway.take(second)
    assert (len(gateway.inflight), second.began) == (1, 0)


def test_a_token_is_decided_anew_for_each_request() -> None:
    gateway = Gateway(auth="token")
    assert gateway.take(Exchange(("Authorization", "Bearer secret-a")))
    with pytest.raises(Refusal, match="a valid token or key is needed"):
        gateway.take(Exchange(("Authorization", "Bearer secret-b")))


class Verifier:
    """Knows the tokens that it was shown before."""

    def __init__(self, *known: str) -> None:
        self.known = known

    def cached_principal(self, token: str) -> dict[str, Any] | None:
        return {"name": token, "kind": "jwt", "groups": []} if token in self.known else None

    async def verify(self, token: str) -> dict[str, Any]:
        raise AssertionError(f"{token} may have to wait")


def test_a_web_token_that_was_not_verified_lately_is_left_untouched() -> None:
    gateway = Gateway(verifier=Verifier("carol"))
    new, known = (Exchange(("Authorization", f"Bearer {name}")) for name in ("dave", "carol"))
    assert not gateway.take(new)
    assert gateway.untouched()
    assert gateway.take(known)
    assert gateway.writer.waiting[0][0].principal == {"name": "carol", "kind": "jwt", "groups": []}


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (Refusal("no_space", "full"), {"no_space"}),
        (Terminated(402, b"pay", "text/plain"), {"terminated"}),
        (UnknownOutcome("in doubt"), {"broken"}),
    ],
)
def test_a_failed_commit_is_recorded_and_answered_once(error: Exception, counted: set[str]) -> None:
    gateway, exchange = Gateway(), Exchange()
    assert gateway.take(exchange)
    gateway.writer.end(error)
    assert exchange.ends == [error]
    assert (len(gateway.inflight), gateway.counted()) == (0, counted)
    assert gateway.hooks.failed == ([error.code] if isinstance(error, Refusal) else [])


def test_a_stored_upload_without_a_response_is_not_left_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, exchange = Gateway(), Exchange()

    def fails(_: Stored) -> None:
        raise ValueError("no response")

    monkeypatch.setattr("gateway.endpoints.uploads.short_put.stored_response", fails)
    assert gateway.take(exchange)
    gateway.writer.end()
    assert [type(end) for end in exchange.ends] == [UnknownOutcome]
    assert gateway.counted() == {"stored"}


def test_a_failed_upload_is_answered_even_where_it_cannot_be_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway, exchange, refusal = Gateway(), Exchange(), Refusal("no_space", "full")

    def fails(*_: object) -> None:
        raise ValueError("not recorded")

    monkeypatch.setattr(gateway.hooks, "notify_upload_failed", fails)
    assert gateway.take(exchange)
    gateway.writer.end(refusal)
    assert exchange.ends == [refusal]


def test_a_commit_that_cannot_begin_is_recorded_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, exchange, error = Gateway(), Exchange(), OSError(5, "I/O error")

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(gateway.writer, "submit", fails)
    assert gateway.take(exchange)
    assert (exchange.ends, len(gateway.inflight)) == ([error], 0)


def test_handlers_decide_before_the_commit() -> None:
    gateway, exchange = Gateway(handlers=1), Exchange()
    assert gateway.take(exchange)
    assert gateway.writer.waiting == []
    [upload], [decide] = gateway.hooks.uploads, gateway.hooks.deciding
    upload.path = "/elsewhere"
    decide(None)
    gateway.writer.end()
    assert [type(end) for end in exchange.ends] == [SmallResponse]
    assert gateway.counted() == {"stored"}


def test_a_file_is_not_stored_unseen_where_its_handlers_were_loaded_meanwhile() -> None:
    gateway, exchange = Gateway(handlers=1), Exchange()
    assert gateway.take(exchange)
    gateway.hooks.received = True
    gateway.hooks.deciding[0](None)
    assert gateway.writer.waiting == []
    assert gateway.counted() == {"hook_failed"}


@pytest.mark.parametrize("code", ["hook_failed", "overloaded"])
def test_what_handlers_refuse_is_never_committed(code: str) -> None:
    gateway, exchange, refusal = Gateway(handlers=1), Exchange(), Refusal(code, "no")
    assert gateway.take(exchange)
    gateway.hooks.deciding[0](refusal)
    assert (exchange.ends, gateway.writer.waiting) == ([refusal], [])
    assert refusal.upload_id == exchange.head.facts.upload_id
    assert (len(gateway.inflight), gateway.counted()) == (0, {code})


@pytest.mark.parametrize("path", ["/upload/../x", "/.gateway/x"])
def test_a_bad_path_of_a_handler_is_the_failure_of_the_handler(path: str) -> None:
    gateway, exchange = Gateway(handlers=1), Exchange()
    assert gateway.take(exchange)
    gateway.hooks.uploads[0].path = path
    gateway.hooks.deciding[0](None)
    [refusal] = exchange.ends
    assert isinstance(refusal, Refusal)
    assert (refusal.code, gateway.writer.waiting) == ("hook_failed", [])


def test_a_protected_path_of_a_handler_is_the_failure_of_the_handler() -> None:
    gateway, exchange = Gateway(handlers=1), Exchange()
    assert gateway.take(exchange)
    gateway.hooks.uploads[0].path = "/upload/plugins/x"
    gateway.hooks.deciding[0](None)
    gateway.writer.end(Refusal("forbidden", "a protected place"))
    [refusal] = exchange.ends
    assert isinstance(refusal, Refusal)
    assert refusal.code == "hook_failed"


def test_a_size_that_a_handler_limits_is_checked_before_the_commit() -> None:
    gateway, exchange = Gateway(handlers=1), Exchange()
    assert gateway.take(exchange)
    gateway.hooks.uploads[0].max_bytes = 4
    gateway.hooks.deciding[0](None)
    [refusal] = exchange.ends
    assert isinstance(refusal, Refusal)
    assert (refusal.code, gateway.writer.waiting) == ("too_large", [])


def test_a_stop_cancels_the_handlers_that_still_run_and_no_commit() -> None:
    gateway, deciding, committing = Gateway(handlers=1), Exchange(), Exchange()
    assert gateway.take(committing)
    gateway.hooks.deciding[0](None)
    assert gateway.take(deciding)
    gateway.uploads.cancel_admissions()
    gateway.uploads.cancel_admissions()
    assert gateway.hooks.cancelled == 1
    assert [type(end) for end in deciding.ends] == [ClientDisconnected]
    assert committing.ends == []
    gateway.writer.end()
    assert [type(end) for end in committing.ends] == [SmallResponse]
    assert len(gateway.inflight) == 0
