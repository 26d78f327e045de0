"""Decisions about whole files: what reaches the handlers, and what their decision leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from gateway.auth.authenticator import Auth
from gateway.auth.principals import INTERNAL
from gateway.domain.grant import Grant
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.endpoints.inflight import Inflight, Progress
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.decision import ReceivedDecisions, WholeUpload
from gateway.endpoints.uploads.event_size import EventSizeLimit
from gateway.endpoints.uploads.received_shadows import ReceivedShadows
from gateway.errors import ClientDisconnected, Refusal
from gateway.files.service import FilesService
from gateway.plugins.hooks import Hooks
from gateway.plugins.shadow_runs import Shadows
from gateway.settings import Settings
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.redaction import Redaction
from tests.unit.files.test_service import FakeStorage

ID = "01-0"


class Handlers:
    """Handlers of OnFileReceived that change the upload as the test says, and hold it by `names`."""

    def __init__(self, names: Sequence[str] = (), **changes: Any) -> None:
        self.names = tuple(names)
        self.changes = changes
        self.events: list[dict[str, Any]] = []
        self.waiting: asyncio.Future[None] | None = None

    def has_handlers(self, _: str) -> bool:
        return True

    def handler_specs(self, *_: str) -> tuple[str, ...]:
        return ("uploaded",)

    async def decide_received(self, upload: Upload, event: dict[str, Any]) -> tuple[str, ...]:
        self.events.append(event)
        if self.waiting is not None:
            await self.waiting
        for name, value in self.changes.items():
            setattr(upload, name, value)
        return self.names


class WithoutShadows:
    def of(self, _: str, __: str) -> tuple[()]:
        return ()


class Body:
    """A body that is whole; it notes what it is asked for, and which private files there are then."""

    def __init__(self, files: FilesService) -> None:
        self.files = files
        self.calls: list[tuple[Any, ...]] = []

    async def stage(self) -> PrivateFile:
        self.calls.append(("stage",))
        return PrivateFile(7, Path("/private/body"))

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        self.calls.append(("hold", dict(digests), list(handlers), self.files.private.path_of(ID)))
        return Held(ID, "/x", 7, "a/b", {})

    async def commit(self) -> Stored:
        self.calls.append(("commit", self.files.private.path_of(ID)))
        return Stored(ID, "/x", 7, "a/b", False, {})


class Scene:
    def __init__(self, handlers: Handlers, upload: Upload, max_event: int | None = None) -> None:
        self.files, hooks = FilesService(FakeStorage()), cast(Hooks, handlers)
        limit = None if max_event is None else EventSizeLimit(hooks, lambda: max_event)
        settings, auth, marks = Settings(), cast(Auth, None), cast(OneTimeMarks, None)
        admission = Admission(settings, auth, hooks, Inflight(), marks, limit)
        none = cast(Shadows, WithoutShadows())
        shadows = ReceivedShadows(none, self.files, Redaction(()))
        self.decisions = ReceivedDecisions(admission, self.files, shadows)
        self.body = Body(self.files)
        self.progress = Progress(upload, None, "receiving", 7, 0.0)
        self.upload = upload

    def whole(self, request: web.BaseRequest | None = None) -> WholeUpload:
        digests = {"sha-256": "x"}
        return WholeUpload(self.upload, self.body, digests, self.progress, self.body.commit, request)

    async def run(self) -> Stored | Held:
        whole = self.whole()
        return await self.decisions.complete(whole, await self.decisions.decide(whole))


class Gone:
    """A request whose client has disconnected."""

    transport = protocol = None


def upload(**values: Any) -> Upload:
    return Upload(**{"id": ID, "path": "/x", **values})


async def test_handlers_get_the_whole_redacted_event_and_the_body_is_private_again_at_the_commit() -> (
    None
):
    handlers = Handlers(results={"h": {"n": 1}})
    scene = Scene(handlers, upload(headers={"Authorization": "secret"}, content_type="a/b"))
    stored = await scene.run()
    assert stored == Stored(ID, "/x", 7, "a/b", False, {}, {"n": 1})
    [event] = handlers.events
    assert (event["id"], event["filepath"], event["bytes"]) == (f"{ID}.received", "/private/body", 7)
    assert event["headers"] == {"Authorization": "[redacted]"}
    assert event["digests"] == {"sha-256": "x"}
    assert scene.body.calls == [("stage",), ("commit", None)]
    assert scene.progress.state == "committing"


async def test_handlers_with_hold_hold_the_body_with_what_the_others_changed() -> None:
    scene = Scene(Handlers(["a", "b"], path="/y", results={"h": {"n": 1}}), upload())
    assert await scene.run() == Held(ID, "/x", 7, "a/b", {}, {"n": 1})
    assert scene.body.calls == [("stage",), ("hold", {"sha-256": "x"}, ["a", "b"], None)]


async def test_no_handler_is_asked_about_what_another_node_saves_for_a_script() -> None:
    scene = Scene(Handlers(["a"]), upload(principal=dict(INTERNAL)))
    assert isinstance(await scene.run(), Stored)
    assert scene.body.calls == [("commit", None)]


@pytest.mark.parametrize("path", ["/../x", "/a//b", "/a\n"])
async def test_a_bad_path_of_a_handler_is_a_failed_hook_before_the_commit(path: str) -> None:
    scene = Scene(Handlers(path=path), upload())
    with pytest.raises(Refusal) as caught:
        await scene.run()
    assert caught.value.code == "hook_failed"
    assert scene.body.calls == [("stage",)]


@pytest.mark.parametrize(("path", "code"), [("/new", "hook_failed"), ("/x", "forbidden")])
async def test_a_path_that_the_commit_refuses_is_a_failed_hook_if_a_handler_wrote_it(
    path: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Body) -> Stored:
        raise Refusal("forbidden", "a protected path")

    monkeypatch.setattr(Body, "commit", refuse)
    with pytest.raises(Refusal) as caught:
        await Scene(Handlers(path=path), upload()).run()
    assert caught.value.code == code


async def test_more_metadata_than_an_event_can_have_is_a_failed_hook() -> None:
    scene = Scene(Handlers(metadata={"k": "v" * 2000}), upload(), max_event=1500)
    with pytest.raises(Refusal) as caught:
        await scene.run()
    assert caught.value.code == "hook_failed"


async def test_no_handler_allows_more_than_a_signed_url() -> None:
    grant = Grant("PUT", "/x", 0, on_conflict="reject")
    scene = Scene(Handlers(on_conflict="replace"), upload(grant=grant))
    await scene.run()
    assert scene.upload.on_conflict == "reject"


@pytest.mark.parametrize(("is_plain", "code"), [(True, "hook_failed"), (False, "not_implemented")])
async def test_a_body_that_handlers_cannot_read_is_not_published(
    is_plain: bool, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Body) -> PrivateFile:
        raise Refusal("not_implemented", "it began before")

    monkeypatch.setattr(Body, "stage", refuse)
    scene = Scene(Handlers(), upload())
    with pytest.raises(Refusal) as caught:
        await scene.decisions.decide(scene.whole(cast(web.BaseRequest, Gone()) if is_plain else None))
    assert caught.value.code == code


async def test_a_client_that_has_gone_ends_the_decision_and_leaves_the_body_to_the_caller() -> None:
    handlers = Handlers()
    handlers.waiting = asyncio.get_running_loop().create_future()
    scene = Scene(handlers, upload())

    with pytest.raises(ClientDisconnected):
        await scene.decisions.decide(scene.whole(cast(web.BaseRequest, Gone())))
    assert scene.body.calls == [("stage",)]
    assert scene.files.private.path_of(ID) is None


async def test_a_gateway_that_stops_cancels_the_decision() -> None:
    handlers = Handlers()
    handlers.waiting = asyncio.get_running_loop().create_future()
    scene = Scene(handlers, upload())
    deciding = asyncio.create_task(scene.decisions.decide(scene.whole()))
    while not handlers.events:
        await asyncio.sleep(0)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    assert handlers.waiting.cancelled()
    assert scene.files.private.path_of(ID) is None
