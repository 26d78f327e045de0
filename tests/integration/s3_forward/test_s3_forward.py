"""plugins/s3-forward against a real S3 server: whole, verified, once, and never the wrong file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartProcess
from tests.integration.promise.test_processes import slot_of
from tests.integration.s3_forward.conftest import Forwarder
from tests.support.harness import (
    GatewayProcess,
    RawConnection,
    files_below,
    get,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_settled,
)
from tests.support.s3.servers import Rclone, S3Server, SeaweedFS

pytestmark = pytest.mark.slow

MIB = 1 << 20


def big(folder: Path, size: int) -> Path:
    """A file of `size` bytes in which no two parts are alike."""
    file = folder / "big.bin"
    with file.open("wb") as out:
        for number in range(0, size, MIB):
            block = hashlib.sha256(str(number).encode()).digest() * (MIB // 32)
            out.write(block[: min(MIB, size - number)])
    return file


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def upload(gateway: GatewayProcess, file: Path, target: str, *headers: str) -> str:
    """Upload with curl; return the upload's id."""
    words = ["curl", "-sS", "-T", str(file), f"{gateway.url}{target}"]
    for header in headers:
        words += ["-H", header]
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return str(json.loads(out)["upload_id"])


async def stored(server: S3Server, bucket: str, key: str) -> tuple[dict[str, Any], str]:
    """Return what HEAD says of an object, and the SHA-256 of its bytes."""
    async with server.client() as client:
        head = await client.head_object(Bucket=bucket, Key=key)
        answer = await client.get_object(Bucket=bucket, Key=key)
        digest = hashlib.sha256()
        async for chunk in answer["Body"].iter_chunks(MIB):
            digest.update(chunk)
    return head, digest.hexdigest()


async def unfinished(server: S3Server, bucket: str) -> list[Any]:
    async with server.client() as client:
        listed = await client.list_multipart_uploads(Bucket=bucket)
    return list(listed.get("Uploads", ()))


async def progress_of(gateway: GatewayProcess, upload_id: str) -> dict[str, Any] | None:
    story = (await get(gateway, f"/-/uploads/{upload_id}")).json
    found: dict[str, Any] | None = story["handlers"][0].get("progress") if story["handlers"] else None
    return found


def uploads(gateway: GatewayProcess) -> dict[str, bytes]:
    """Return the files that the gateway holds."""
    folder = gateway.directory / "upload"
    return files_below(folder) if folder.exists() else {}


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 8 * MIB + 1, 300 * MIB])
async def test_a_file_of_any_size_arrives_whole_and_only_then_goes(
    s3: SeaweedFS,
    bucket: str,
    forwarder: Forwarder,
    gateway_process: StartProcess,
    tmp_path: Path,
    size: int,
) -> None:
    file = big(tmp_path, size)
    gateway = gateway_process("--plugins", str(forwarder(s3, prefix="/in/")), "--auth", "none")
    upload_id = await upload(gateway, file, "/upload/caf%C3%A9/a.bin", "Content-Type: image/png")
    await handlers_done(gateway, upload_id)
    head, digest = await stored(s3, bucket, "in/upload/café/a.bin")
    assert digest == sha256(file)
    assert head["ContentLength"] == size
    assert head["ContentType"] == "image/png"
    assert head["Metadata"] == {"upload-id": upload_id, "path": "/upload/caf%C3%A9/a.bin"}
    assert uploads(gateway) == {}
    assert await unfinished(s3, bucket) == []
    # A busy machine may hold an executor up now and then; hashing there would do so at each part.
    assert gateway.log().count("blocks its script executor") <= 2


async def test_the_object_tells_who_sent_it_in_plain_ascii(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"a-token").hexdigest()
    config = tmp_path / "gateway.yaml"
    config.write_text(f"auth: token\ntokens: [{{name: joe@here, sha256: {digest}}}]\n", "utf-8")
    gateway = gateway_process("--plugins", str(forwarder(s3)), "--config", str(config))
    bearer = "Authorization: Bearer a-token"
    upload_id = (await put(gateway, "/upload/a.bin", b"x", bearer)).json["upload_id"]
    async with asyncio.timeout(60):
        while uploads(gateway):
            await asyncio.sleep(0.02)  # the file goes when the object has been verified
    head, _ = await stored(s3, bucket, "upload/a.bin")
    expected = {"upload-id": upload_id, "path": "/upload/a.bin", "principal": "joe%40here"}
    assert head["Metadata"] == expected


async def test_memory_does_not_grow_with_the_file(
    s3: SeaweedFS, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    gateway = gateway_process("--plugins", str(forwarder(s3)), "--auth", "none")
    answer = await put(gateway, "/upload/first.bin", b"x" * MIB)
    await handlers_done(gateway, answer.json["upload_id"])
    process = psutil.Process(gateway.process.pid)
    before = highest = process.memory_info().rss
    upload_id = await upload(gateway, big(tmp_path, 300 * MIB), "/upload/a.bin")
    waiting = asyncio.create_task(handlers_done(gateway, upload_id))
    while not waiting.done():
        highest = max(highest, process.memory_info().rss)
        await asyncio.sleep(0.02)  # a sample now and then
    await waiting
    assert highest - before < 64 * MIB


async def test_a_server_that_dies_in_the_middle_gets_the_file_when_it_is_back(
    tmp_path: Path, bucket: str, forwarder: Forwarder, gateway_process: StartProcess
) -> None:
    file = big(tmp_path, 15 * MIB)
    with SeaweedFS(tmp_path / "seaweedfs") as server:
        folder = forwarder(
            server, script=held_up_by(tmp_path / "go"), part_size=5 * MIB, parts_in_flight=1
        )
        gateway = gateway_process("--plugins", str(folder), "--auth", "none")
        upload_id = await upload(gateway, file, "/upload/a.bin")
        async with asyncio.timeout(60):
            while not (progress := await progress_of(gateway, upload_id)) or not progress["done"]:
                await asyncio.sleep(0.01)  # the page is the only sign
        server.kill()
        (tmp_path / "go").touch()
        assert progress["done"] < progress["total"] == 15 * MIB
        await handlers_state(gateway, upload_id, {"retry", "queued"})
        assert list(uploads(gateway)) == ["a.bin"]
        server.start()
        story = await handlers_done(gateway, upload_id)
        assert story["handlers"][0]["attempt"] > 1
        assert "progress" not in story["handlers"][0]
        _, digest = await stored(server, bucket, "upload/a.bin")
        assert digest == sha256(file)
        assert await unfinished(server, bucket) == []
        assert uploads(gateway) == {}


async def handlers_state(gateway: GatewayProcess, upload_id: str, states: set[str]) -> None:
    async with asyncio.timeout(60):
        while True:
            story = (await get(gateway, f"/-/uploads/{upload_id}")).json
            if {handler["state"] for handler in story["handlers"]} <= states:
                return
            await asyncio.sleep(0.02)  # as above


async def test_a_gateway_that_dies_in_the_middle_leaves_no_parts_behind(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    file = big(tmp_path, 15 * MIB)
    folder = forwarder(s3, script=held_up_by(tmp_path / "go"), part_size=5 * MIB, parts_in_flight=1)
    gateway = gateway_process("--plugins", str(folder), "--auth", "none")
    upload_id = await upload(gateway, file, "/upload/a.bin")
    async with asyncio.timeout(60):
        while not (progress := await progress_of(gateway, upload_id)) or not progress["done"]:
            await asyncio.sleep(0.01)  # as above
    gateway.kill()
    assert len(await unfinished(s3, bucket)) == 1
    (tmp_path / "go").touch()
    again = gateway_process("--plugins", str(folder), "--auth", "none")
    await handlers_done(again, upload_id)
    _, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == sha256(file)
    assert await unfinished(s3, bucket) == []
    assert uploads(again) == {}


def variant(body: str) -> str:
    """The plugin's script, with a body of the test's own."""
    inner = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    return (
        "import os\nimport s3forward\n\n"
        "class Files:\n"
        "    def __init__(self, remove):\n"
        "        self.open, self.remove = files.open, remove\n\n"
        "async def s3Forward(event, handle):\n"
        "    config = await get_service_config('s3')\n"
        "    async def forward(lent):\n"
        "        await s3forward.forward(event, lent, config, state, handle.progress)\n"
        f"{inner}\n"
    )


def held_up_by(go: Path) -> str:
    """The plugin's script, which sends one part and goes on when `go` is there."""
    return variant(f"""
        class Held(s3forward._Forwarding):
            async def _send(self, upload_id, part):
                while part.number > 1 and not os.path.exists({str(go)!r}):
                    await asyncio.sleep(0.01)
                return await super()._send(upload_id, part)
        s3forward._Forwarding = Held
        await forward(files)
    """)


async def test_a_run_that_fails_in_the_middle_frees_its_parts(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    script = variant("""
        def fail(done, total):
            if done:
                raise RuntimeError("in the middle")
        await s3forward.forward(event, files, config, state, fail)
    """)
    gateway = gateway_process(
        "--plugins", str(forwarder(s3, script=script, attempts=1)), "--auth", "none"
    )
    upload_id = await upload(gateway, big(tmp_path, 30 * MIB), "/upload/a.bin")
    story = await handlers_done(gateway, upload_id, state="dead")
    assert story["handlers"][0]["error"] == "RuntimeError: in the middle"
    assert await unfinished(s3, bucket) == []
    assert list(uploads(gateway)) == ["a.bin"]


async def test_an_event_that_comes_again_after_all_was_done_does_no_harm(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    script = variant("""
        await forward(files)
        if event["attempt"] == 1:
            raise RuntimeError("after all was done")
    """)
    gateway = gateway_process("--plugins", str(forwarder(s3, script=script)), "--auth", "none")
    answer = await put(gateway, "/upload/a.bin", b"only once")
    story = await handlers_done(gateway, answer.json["upload_id"])
    assert story["handlers"][0]["attempt"] == 2
    head, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == hashlib.sha256(b"only once").hexdigest()
    assert head["Metadata"]["upload-id"] == answer.json["upload_id"]
    assert "nothing more to do" in gateway.log()


@pytest.mark.parametrize("size", [9, 11 * MIB])
async def test_what_is_there_already_is_not_sent_again(
    s3: SeaweedFS,
    bucket: str,
    forwarder: Forwarder,
    gateway_process: StartProcess,
    tmp_path: Path,
    size: int,
) -> None:
    script = variant("""
        async def stop_short(event):
            raise RuntimeError("before the removal")
        await forward(Files(stop_short) if event["attempt"] == 1 else files)
    """)
    gateway = gateway_process("--plugins", str(forwarder(s3, script=script)), "--auth", "none")
    upload_id = await upload(gateway, big(tmp_path, size), "/upload/a.bin")
    await handlers_done(gateway, upload_id)
    assert gateway.log().count("has this upload already") == 1
    _, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == sha256(tmp_path / "big.bin")
    assert uploads(gateway) == {}


async def test_an_object_with_our_mark_and_other_bytes_is_sent_again(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess
) -> None:
    script = variant("""
        import s3target
        async def spoil(event):
            async with s3target.Target.of(config).client() as client:
                mark = {"upload-id": event["upload_id"]}
                key = event["path"].lstrip("/")
                await client.put_object(Bucket=config["bucket"], Key=key, Body=b"wrong", Metadata=mark)
            raise RuntimeError("spoiled")
        await forward(Files(spoil) if event["attempt"] == 1 else files)
    """)
    gateway = gateway_process("--plugins", str(forwarder(s3, script=script)), "--auth", "none")
    answer = await put(gateway, "/upload/a.bin", b"right")
    await handlers_done(gateway, answer.json["upload_id"])
    _, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == hashlib.sha256(b"right").hexdigest()
    assert "has this upload already" not in gateway.log()


async def test_what_does_not_stand_the_verification_is_kept_here(
    s3: SeaweedFS, forwarder: Forwarder, gateway_process: StartProcess
) -> None:
    script = variant("""
        class Spoiled(s3forward._Forwarding):
            async def _put(self):
                await super()._put()
                mark = self._description()
                await self.client.put_object(**self._place, **mark, Body=b"wrong")
        s3forward._Forwarding = Spoiled
        await forward(files)
    """)
    gateway = gateway_process(
        "--plugins", str(forwarder(s3, script=script, attempts=1)), "--auth", "none"
    )
    answer = await put(gateway, "/upload/a.bin", b"right")
    story = await handlers_done(gateway, answer.json["upload_id"], state="dead")
    assert "NotVerified" in story["handlers"][0]["error"]
    assert uploads(gateway) == {"a.bin": b"right"}


@pytest.mark.parametrize("size", [1, 21 * MIB])
async def test_another_kind_of_server_gets_the_file_too(
    bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path, size: int
) -> None:
    file = big(tmp_path, size)
    with Rclone(tmp_path / "rclone") as server:
        gateway = gateway_process("--plugins", str(forwarder(server)), "--auth", "none")
        await handlers_done(gateway, await upload(gateway, file, "/upload/a.bin"))
        _, digest = await stored(server, bucket, "upload/a.bin")
        assert digest == sha256(file)
        # Again, into a bucket that is there, on a server that lists no unfinished uploads.
        await handlers_done(gateway, await upload(gateway, file, "/upload/b.bin"))
        _, digest = await stored(server, bucket, "upload/b.bin")
        assert digest == sha256(file)
        assert uploads(gateway) == {}


async def test_a_file_that_was_replaced_meanwhile_is_not_removed(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    script = variant(f"""
        async def late(event):
            while not os.path.exists({str(tmp_path / "go")!r}):
                await asyncio.sleep(0.01)
            await files.remove(event)
        if "stay" not in event["params"]:
            await forward(Files(late))
    """)
    gateway = gateway_process("--plugins", str(forwarder(s3, script=script)), "--auth", "none")
    older = (await put(gateway, "/upload/a.bin", b"older")).json["upload_id"]
    async with asyncio.timeout(60):
        while not (progress := await progress_of(gateway, older)) or not progress["done"]:
            await asyncio.sleep(0.01)  # as above
    newer = (await put(gateway, "/upload/a.bin?stay=1", b"newer")).json["upload_id"]
    (tmp_path / "go").touch()
    await handlers_done(gateway, older)
    await handlers_done(gateway, newer)
    assert uploads(gateway) == {"a.bin": b"newer"}
    _, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == hashlib.sha256(b"older").hexdigest()


async def test_the_newest_of_many_versions_is_the_one_that_stays(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    gateway = gateway_process("--plugins", str(forwarder(s3)), "--auth", "none")
    ids = []
    for number in range(10):
        body = str(number).encode() * 100
        ids.append((await put(gateway, "/upload/a.bin", body)).json["upload_id"])
    for upload_id in ids:
        await handlers_done(gateway, upload_id)
    _, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == hashlib.sha256(b"9" * 100).hexdigest()
    assert uploads(gateway) == {}


async def test_the_newest_version_stays_whichever_process_sends_it(
    s3: SeaweedFS, bucket: str, forwarder: Forwarder, gateway_process: StartProcess, tmp_path: Path
) -> None:
    script = variant(f"""
        class Held(s3forward._Forwarding):
            async def _put(self):
                while "held" in event["params"] and not os.path.exists({str(tmp_path / "go")!r}):
                    await asyncio.sleep(0.01)
                await super()._put()
        s3forward._Forwarding = Held
        await forward(files)
    """)
    folder = str(forwarder(s3, script=script))
    gateway = gateway_process("--plugins", folder, "--auth", "none", "--processes", "2")
    async with contextlib.AsyncExitStack() as open_connections:
        first, second = await one_of_each(gateway, open_connections)
        older = await sent_through(first, "/upload/a.bin?held=1", b"older")
        async with asyncio.timeout(60):
            while not await progress_of(gateway, older):
                await asyncio.sleep(0.01)  # as above
        newer = await sent_through(second, "/upload/a.bin", b"newer")
    async with asyncio.timeout(60):
        while "upload/a.bin is locked by another" not in gateway.log() and "a.bin" in uploads(gateway):
            await asyncio.sleep(0.01)  # it waits, or else it has been sent and removed
    (tmp_path / "go").touch()
    await handlers_done(gateway, older)
    await handlers_done(gateway, newer)
    await wait_settled(gateway)
    told, digest = await stored(s3, bucket, "upload/a.bin")
    assert digest == hashlib.sha256(b"newer").hexdigest()
    assert told["Metadata"]["upload-id"] == newer
    assert uploads(gateway) == {}


async def one_of_each(
    gateway: GatewayProcess, until: contextlib.AsyncExitStack
) -> tuple[RawConnection, RawConnection]:
    """Return connections to both processes of a gateway."""
    found: dict[int, RawConnection] = {}
    async with asyncio.timeout(60):
        while len(found) < 2:
            connection = await until.enter_async_context(raw_connection(gateway))
            found[slot_of(await sent_through(connection, "/upload/probe", b"x"))] = connection
    return found[0], found[1]


async def sent_through(connection: RawConnection, target: str, body: bytes) -> str:
    await connection.send(request_head("PUT", target, f"Content-Length: {len(body)}") + body)
    return str((await connection.answer()).json["upload_id"])


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret_access_key": "WRONGSECRET99"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "AKIDNOBODY"}, "InvalidAccessKeyId"),
    ],
)
async def test_wrong_credentials_end_dead_with_the_code_and_the_file_is_kept(
    s3: SeaweedFS, forwarder: Forwarder, gateway_process: StartProcess, wrong: dict[str, str], code: str
) -> None:
    folder = forwarder(s3, attempts=2, **wrong)
    gateway = gateway_process("--plugins", str(folder), "--auth", "none")
    upload_id = (await put(gateway, "/upload/a.bin", b"precious")).json["upload_id"]
    story = await handlers_done(gateway, upload_id, state="dead")
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "events", "show", story["handlers"][0]["event_id"],
         "--directory", str(gateway.directory)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(rf"ClientError: .*{code}", shown.stdout)
    assert "WRONGSECRET99" not in shown.stdout + gateway.log()
    assert uploads(gateway) == {"a.bin": b"precious"}
