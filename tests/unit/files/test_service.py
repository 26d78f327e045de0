"""`files` by event where a peer owns the file: which version, from where, and whose failure."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from gateway.auth.installation import Installation
from gateway.domain.addresses import Address
from gateway.domain.model import Delivery, Origin
from gateway.errors import HandlerFailed, PeerUnavailable, Refusal, Superseded
from gateway.files.peers import Peers, PeerStorage
from gateway.files.service import FilesService, SharedDisk
from gateway.files.versions import FileVersion
from gateway.settings import load
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import PresignedRequest, Stat

OWNER = Address("owner.example", 8080)
URL = "http://owner.example:8080"


class FakeStorage:
    """One file at any path, with the entity tag `etag`; requests raise `error` where it is set."""

    def __init__(self, etag: str = "the-etag", error: Exception | None = None) -> None:
        self.etag = etag
        self.error = error
        self.requests: list[tuple[str, str, str | None]] = []
        self.stat_of_file = Stat("/x", 4, 0.0, etag)
        self.fd: int | None = None

    def _request(self, method: str, path: str, etag: str | None) -> None:
        self.requests.append((method, path, etag))
        if self.error is not None:
            raise self.error
        if etag is not None and etag != self.etag:
            raise Superseded("another version")

    async def stat(self, path: str) -> Stat:
        self._request("stat", path, None)
        return self.stat_of_file

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[FakeFile]:
        self._request("open", path, etag)
        yield FakeFile(self.stat_of_file)

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        raise NotImplementedError

    async def delete(self, path: str, etag: str | None = None) -> None:
        self._request("delete", path, etag)

    async def sign(self, grant: object, *, expires: float) -> PresignedRequest | None:
        raise NotImplementedError

    async def etag_of_upload(self, upload_id: str) -> str:
        self._request("etag", upload_id, None)
        return self.etag


class FakeFile:
    fd: int | None = None

    def __init__(self, stat: Stat) -> None:
        self.stat = stat

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"by"
        yield b"te"


class KnownVersions:
    def __init__(self, versions: Mapping[str, FileVersion]) -> None:
        self._versions = versions

    async def find(self, upload_ids: Sequence[str]) -> Mapping[str, FileVersion]:
        return {key: value for key, value in self._versions.items() if key in upload_ids}

    async def moved(self, upload_id: str, stat: Stat) -> None:
        raise NotImplementedError


class Scene:
    """A gateway or worker, the disk of its own, and a peer that owns the file of every delivery."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load({"directory": str(folder)}, {})
        installation = Installation(settings, [b"k" * 32], ("127.0.0.1", 9000))
        self.directory = folder
        self.peer = FakeStorage()
        self.own = FakeStorage()
        self.peers = Peers(installation, lambda: ("127.0.0.1", 9000))
        self.owners: list[str] = []
        self._tree = DirectoryTree(folder, [])
        self.disk = SharedDisk(LocalStorage(self._tree), folder)
        monkeypatch.setattr(Peers, "storage", self._storage)

    def _storage(self, owner: str) -> FakeStorage:
        self.owners.append(owner)
        return self.peer

    def close(self) -> None:
        self._tree.close()

    def worker(self) -> FilesService:
        return FilesService(self.own, peers=self.peers, disk=self.disk)

    def on_bucket(self, **known: FileVersion) -> FilesService:
        return FilesService(self.own, peers=self.peers, versions=KnownVersions(known))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    scene = Scene(tmp_path, monkeypatch)
    yield scene
    scene.close()


def delivery(etag: str | None = "the-etag", **changes: Any) -> Delivery:
    facts: dict[str, Any] = {
        "token": None,
        "event_id": "e",
        "upload_id": "u",
        "event": "APIGW.OnFileUploaded",
        "handler": "h",
        "attempt": 1,
        "body": {"path": "/x"},
        "holder": "owner.example:8080",
        "origin": Origin("http", etag),
    }
    return Delivery(**{**facts, **changes})


async def read(files: FilesService, event: Mapping[str, Any]) -> bytes:
    async with files.open(event) as reader:
        return bytes(await reader.read())


async def test_a_worker_reads_and_removes_the_version_of_the_event_at_its_owner(scene: Scene) -> None:
    files = scene.worker()
    event = await files.event_for(delivery())
    assert (event["address"], event["port"], event["filepath"]) == (*OWNER, None)
    event["path"] = "/what a script made of it"
    assert await read(files, event) == b"byte"
    await files.remove(event)
    assert scene.peer.requests == [("open", "/x", "the-etag"), ("delete", "/x", "the-etag")]
    assert set(scene.owners) == {URL}


async def test_a_delivery_that_names_no_version_has_its_owner_asked_for_it(scene: Scene) -> None:
    files = scene.worker()
    event = await files.event_for(delivery(etag=None))
    assert await read(files, event) == b"byte"
    assert scene.peer.requests == [("etag", "u", None), ("open", "/x", "the-etag")]


async def test_a_version_that_is_on_the_shared_disk_is_read_there_and_removed_by_its_owner(
    scene: Scene,
) -> None:
    (scene.directory / "x").write_bytes(b"here")
    scene.peer.etag = (await scene.disk.storage.stat("/x")).etag
    files = scene.worker()
    event = await files.event_for(delivery(etag=scene.peer.etag))
    assert event["filepath"] == str(scene.directory / "x")
    assert await read(files, event) == b"here"
    await files.remove(event)
    assert scene.peer.requests == [("delete", "/x", scene.peer.etag)]
    assert (scene.directory / "x").exists()


async def test_another_version_on_the_shared_disk_is_not_the_file(scene: Scene) -> None:
    (scene.directory / "x").write_bytes(b"newer")
    files = scene.worker()
    event = await files.event_for(delivery())
    assert event["filepath"] is None
    assert await read(files, event) == b"byte"


async def test_a_worker_that_had_no_delivery_of_an_upload_knows_no_file(scene: Scene) -> None:
    with pytest.raises(Superseded, match="knows no upload"):
        await read(scene.worker(), {"upload_id": "another", "path": "/x"})
    assert scene.own.requests == scene.peer.requests == []


@pytest.mark.parametrize("code", ["not_found", "superseded", "bad_path"])
async def test_a_file_that_its_owner_does_not_have_is_superseded(scene: Scene, code: str) -> None:
    files = scene.worker()
    event = await files.event_for(delivery())
    scene.peer.error = Refusal(code, "gone")
    with pytest.raises(Superseded):
        await read(files, event)
    with pytest.raises(Superseded):
        await files.remove(event)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("unauthorized", "--installation-key-file"),
        ("forbidden", "--installation-key-file"),
        ("stopping", "answers stopping"),
        ("storage_unavailable", "answers storage_unavailable"),
    ],
)
async def test_what_else_the_owner_refuses_is_no_failure_of_the_handler(
    scene: Scene, code: str, words: str
) -> None:
    files = scene.worker()
    event = await files.event_for(delivery())
    scene.peer.error = Refusal(code, "no")
    with pytest.raises(PeerUnavailable, match=words):
        await read(files, event)
    with pytest.raises(PeerUnavailable, match=words):
        await files.remove(event)


async def test_where_all_share_a_bucket_the_version_of_another_gateways_event_is_read_there(
    scene: Scene,
) -> None:
    files = scene.on_bucket()
    event = await files.event_for(delivery())
    assert event["filepath"] is None
    assert await read(files, event) == b"byte"
    await files.remove(event)
    assert scene.own.requests == [
        ("open", "/x", "the-etag"),
        ("stat", "/x", None),
        ("delete", "/x", "the-etag"),
    ]
    assert scene.peer.requests == []


async def test_where_all_share_a_bucket_the_journal_knows_the_own_uploads(scene: Scene) -> None:
    files = scene.on_bucket(u=FileVersion("/renamed", "the-etag"))
    assert await read(files, {"upload_id": "u", "path": "/x"}) == b"byte"
    assert scene.own.requests == [("open", "/renamed", "the-etag")]


async def test_an_unavailable_bucket_is_not_taken_for_a_missing_file(scene: Scene) -> None:
    files = scene.on_bucket(u=FileVersion("/x", "the-etag"))
    scene.own.error = Refusal("storage_unavailable", "later")
    with pytest.raises(Refusal, match="later"):
        await read(files, {"upload_id": "u"})


async def test_an_event_without_an_upload_is_about_the_version_that_it_names(scene: Scene) -> None:
    files = scene.on_bucket()
    assert (
        await read(files, {"upload_id": None, "path": "/put/by/others", "etag": "the-etag"}) == b"byte"
    )
    assert scene.own.requests == [("open", "/put/by/others", "the-etag")]
    with pytest.raises(Superseded, match="about nothing"):
        await read(files, {"upload_id": None, "path": None})


async def test_a_refusal_inside_the_block_of_a_script_stays_what_it_is(scene: Scene) -> None:
    files = scene.on_bucket()
    with pytest.raises(Refusal, match="of another file"):
        async with files.open({"upload_id": None, "path": "/x"}):
            raise Refusal("not_found", "of another file")


def failed(host: str, port: int) -> HandlerFailed:
    failure = HandlerFailed("the script failed", "")
    key = ConnectionKey(host, port, False, True, None, None, None)
    failure.__cause__ = aiohttp.ClientConnectorError(key, OSError("refused"))
    return failure


async def test_a_run_that_could_not_connect_to_the_owner_is_the_owners_failure(scene: Scene) -> None:
    files = scene.worker()
    unavailable = files.unavailable_owner(delivery(), failed(*OWNER))
    assert isinstance(unavailable, PeerUnavailable)
    assert "cannot be reached" in str(unavailable)
    assert files.unavailable_owner(delivery(), failed("elsewhere.example", 8080)) is None
    assert files.unavailable_owner(delivery(holder=None), failed(*OWNER)) is None
    assert files.unavailable_owner(delivery(), HandlerFailed("its own mistake", "")) is None


async def test_the_newest_delivery_names_the_peer_that_a_worker_uses_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bases: list[str | None] = []

    async def stat(storage: PeerStorage, _path: str) -> None:
        bases.append(storage._base_url())

    monkeypatch.setattr(PeerStorage, "stat", stat)
    installation = Installation(load({"directory": str(tmp_path)}, {}), [b"k" * 32], ("127.0.0.1", 1))
    peers = Peers(installation, lambda: None, "http://first.example:80")
    storage = peers.latest_storage()
    await storage.stat("/x")
    peers.remember(delivery(origin=Origin("https", None)))
    await storage.stat("/x")
    assert bases == ["http://first.example:80", "https://owner.example:8080"]
