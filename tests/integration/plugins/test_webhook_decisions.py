"""Webhooks that decide: what each answer, and none, means for a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.domain.model import (
    DOWNLOADING,
    LISTING,
    RECEIVED,
    UPLOADING,
    Delivery,
    Download,
    FileRequest,
    Upload,
)
from gateway.errors import Refusal, Terminated
from tests.integration.plugins.conftest import StartHooks, webhook
from tests.support.webhook_receiver import Hang, WebhookReceiver, answer

ID = "01JZZZZZZZAAAAAAAAAAAAAAAA-0"
DECIDE = "  decide: true\n"
JSON = "Content-Type: application/json"
EVENT = {
    "id": f"{ID}.received", "upload_id": ID, "path": "/upload/a", "on_conflict": "replace",
    "metadata": {"a": "b"}, "bytes": 3, "attempt": 1,
}  # fmt: skip


def accepting(**values: Any) -> bytes:
    return answer(200, json.dumps(values).encode(), JSON)


def upload() -> Upload:
    return Upload(id=ID, path="/upload/a", headers={"Authorization": "Bearer t"}, metadata={"a": "b"})


async def test_the_receiver_sees_the_event_and_changes_the_upload(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    receiver.answers = [
        accepting(
            path="/b", max_bytes=5, on_conflict="reject", metadata={"C": "d"}, result={"seen": True}
        )
    ]
    hooks = await start(webhook(receiver, UPLOADING, keys=DECIDE))
    assert hooks.replaces_authorization()
    one = upload()
    await hooks.admit_upload(one)
    assert (one.path, one.max_bytes, one.on_conflict) == ("/b", 5, "reject")
    assert one.metadata == {"c": "d"}
    assert one.results == {"notify": {"seen": True}}
    sent = (await receiver.next()).message
    assert sent["data"]["headers"] == {"Authorization": "Bearer t"}
    assert (sent["type"], sent["data"]["path"]) == (UPLOADING, "/upload/a")


@pytest.mark.parametrize("given", [answer(200), answer(204), accepting(), answer(202, b" \n")])
async def test_an_answer_without_changes_accepts(
    start: StartHooks, receiver: WebhookReceiver, given: bytes
) -> None:
    receiver.answers = [given]
    one = upload()
    await (await start(webhook(receiver, UPLOADING, keys=DECIDE))).admit_upload(one)
    assert one == upload()


@pytest.mark.parametrize(
    ("given", "status", "body", "content_type"),
    [
        (answer(403, b"no", "Content-Type: text/plain"), 403, b"no", "text/plain; charset=utf-8"),
        (
            answer(422, b'{"a": 1}', "Content-Type: Application/JSON"),
            422,
            b'{"a": 1}',
            "application/json",
        ),
        (answer(401, b"<b>no", "Content-Type: text/html"), 401, b"<b>no", "text/plain; charset=utf-8"),
        (answer(410), 410, b"", "text/plain; charset=utf-8"),
    ],
)
async def test_a_4xx_refuses_with_that_status_and_body(
    start: StartHooks,
    receiver: WebhookReceiver,
    given: bytes,
    status: int,
    body: bytes,
    content_type: str,
) -> None:
    receiver.answers = [given]
    hooks = await start(webhook(receiver, UPLOADING, keys=DECIDE, more="on_error: allow\n"))
    with pytest.raises(Terminated) as refused:
        await hooks.admit_upload(upload())
    assert (refused.value.status, refused.value.body) == (status, body)
    assert refused.value.content_type == content_type


@pytest.mark.parametrize("on_error", ["deny", "allow"])
@pytest.mark.parametrize(
    "given",
    [
        answer(500),
        answer(302, b"", "Location: /"),
        b"",
        b"\x16\x03garbage\r\n\r\n",
        Hang(),
        Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"),
        answer(200, b"x" * 65537),
    ],
)
async def test_where_nothing_is_decided_it_fails_closed_unless_errors_are_allowed(
    start: StartHooks, receiver: WebhookReceiver, given: bytes | Hang, on_error: str
) -> None:
    receiver.answers = [given]
    more = f"timeout: 0.2\non_error: {on_error}\n"
    hooks, one = await start(webhook(receiver, UPLOADING, keys=DECIDE, more=more)), upload()
    if on_error == "deny":
        with pytest.raises(Refusal, match="could not decide") as refused:
            await hooks.admit_upload(one)
        assert refused.value.status == 503
    else:
        await hooks.admit_upload(one)
    assert one == upload()


@pytest.mark.parametrize(
    "given",
    [
        answer(200, b"<html>sign in</html>", "Content-Type: text/html"),
        answer(200, b"ok"),
        answer(200, b"[]"),
        answer(200, b"[" * 30000),
        accepting(paths="/b"),
        accepting(path=5),
        accepting(path=None),
        accepting(max_bytes="5"),
        accepting(max_bytes=True),
        accepting(on_conflict="maybe"),
        accepting(metadata={"a": 1}),
        accepting(result="text"),
        accepting(result={"big": "x" * 20000}),
    ],
)
async def test_an_answer_that_is_not_understood_never_accepts(
    start: StartHooks, receiver: WebhookReceiver, given: bytes
) -> None:
    receiver.answers = [given]
    hooks = await start(webhook(receiver, UPLOADING, keys=DECIDE, more="on_error: allow\n"))
    with pytest.raises(Refusal, match="could not decide"):
        await hooks.admit_upload(upload())


async def test_other_requests_are_decided_too(start: StartHooks, receiver: WebhookReceiver) -> None:
    receiver.answers = [accepting(path="/c", filename="c.txt"), accepting(path="/d/"), accepting(x=1)]
    hooks = await start(webhook(receiver, f"{DOWNLOADING}, {LISTING}", keys=DECIDE))
    served = await hooks.admit_download(Download(id="d-0", path="/upload/a"))
    assert served is not None
    assert (served.path, served.filename) == ("/c", "c.txt")
    listing = FileRequest(id="l-0", path="/upload/")
    assert await hooks.admit_listing(listing) == "/d/"
    with pytest.raises(Refusal, match="could not decide"):
        await hooks.admit_listing(listing)


async def test_a_filter_leaves_other_paths_to_the_default_authorization(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    receiver.answers = [answer(403)]
    events = f"{UPLOADING}, {DOWNLOADING}, {LISTING}"
    hooks = await start(webhook(receiver, events, keys=DECIDE + "  prefix: /upload/b/\n"))
    assert not hooks.replaces_authorization()
    one = upload()
    await hooks.admit_upload(one)
    assert await hooks.admit_download(Download(id="d-0", path="/upload/a")) is None
    assert receiver.received.empty()
    one.path = "/upload/b/a"
    with pytest.raises(Terminated):
        await hooks.admit_upload(one)
    for path in ("/upload/", "/upload/b/", "/upload/b/c/"):  # each shows files below the prefix
        with pytest.raises(Terminated):
            await hooks.admit_listing(FileRequest(id="l-0", path=path))
        with pytest.raises(Terminated):
            await hooks.admit_download(Download(id="d-0", path=path, archive="zip"))
    assert await hooks.admit_listing(FileRequest(id="l-0", path="/upload/c/")) is None


async def test_a_held_file_is_decided_by_the_answer_to_a_delivery(
    start: StartHooks, receiver: WebhookReceiver
) -> None:
    receiver.answers = [
        answer(503),
        answer(200, b"oops"),
        answer(422, b"bad"),
        accepting(path="/b", metadata={"c": "d"}, result={"ok": 1}),
    ]
    hooks = await start(webhook(receiver, RECEIVED, keys=DECIDE, more="hold: true\n"))
    assert [spec.name for spec in hooks.holding_specs()] == ["notify"]
    delivery = Delivery(1, f"{ID}.received", ID, RECEIVED, "notify", 1, dict(EVENT))
    for _ in range(2):
        outcome = await hooks.run_delivery(delivery, dict(EVENT))
        assert outcome.error is not None
        assert outcome.decision is None
    refused = await hooks.run_delivery(delivery, dict(EVENT))
    assert refused.error is None
    assert refused.decision is not None
    assert refused.decision.refusal is not None
    assert refused.decision.refusal[:2] == (422, b"bad")
    accepted = await hooks.run_delivery(delivery, dict(EVENT))
    assert accepted.decision is not None
    assert (accepted.decision.path, accepted.decision.metadata) == ("/b", {"c": "d"})
    assert accepted.result == {"ok": 1}
