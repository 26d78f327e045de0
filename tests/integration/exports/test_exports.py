"""plugins/exports as it ships, in a real gateway: zips, shares, survives SIGKILL, expires."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml
from yarl import URL

from gateway.auth.tokens import token_digest
from gateway.cli.check import check
from gateway.records.collection import Records, open_records
from gateway.server.app import Gateway
from gateway.settings import Settings
from tests.conftest import StartGateway, StartProcess
from tests.support.export_modules import PLUGIN
from tests.support.harness import TIMEOUT, GatewayProcess, RawResponse, files_below, get
from tests.support.postgres import server
from tests.support.s3.servers import SeaweedFS

RANGE = "/exports?from=2026-01-01&to=2026-01-31"
JSON = "Accept: application/json"

Exporter = Callable[..., Path]


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


PHOTOS: dict[str, dict[str, Any]] = {
    "a": {"title": "=first", "created": at(2026, 1, 1)},
    "b": {"title": "ünïcode", "created": at(2026, 1, 31, 23, 59)},
    "c": {"title": "text", "created": "2026-01-15T10:00:00Z", "tags": ["x"]},
    "early": {"created": at(2025, 12, 31, 23, 59)},
    "late": {"created": at(2026, 2, 1)},
    "late-text": {"created": "2026-02-01"},
    "never": {"title": "no date"},
}


@pytest.fixture
def exporter(tmp_path: Path) -> Exporter:
    """Copy the plugin: `exporter(changes={file: [(old, new)]}, **config)`; return its folder."""
    for name in [name for name in sys.modules if name.startswith("export_")]:
        del sys.modules[name]  # of the copy of another test

    def copy(changes: dict[str, list[tuple[str, str]]] | None = None, **config: Any) -> Path:
        folder = tmp_path / "exports-plugin"
        shutil.copytree(PLUGIN, folder, dirs_exist_ok=True)
        for name, pairs in (changes or {}).items():
            text = (folder / name).read_text()
            for old, new in pairs:
                assert old in text
                text = text.replace(old, new)
            (folder / name).write_text(text)
        said = yaml.safe_load((folder / "config.yaml").read_text())
        said["config"].update({"answer_within": 30, **config})
        (folder / "config.yaml").write_text(yaml.safe_dump(said))
        return folder

    return copy


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files are made: nothing may stay there."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


async def fill(kept: Gateway | Records, items: dict[str, dict[str, Any]] = PHOTOS) -> None:
    photos = (kept.resources.scripts.records if isinstance(kept, Gateway) else kept)("photos")
    await asyncio.gather(*(photos.put(key, item) for key, item in items.items()))


async def fill_folder(directory: Path) -> None:
    """Fill the records of a gateway that does not run."""
    (directory / ".gateway").mkdir(mode=0o700, parents=True)
    records = open_records(Settings(directory=directory))
    await fill(records)
    await asyncio.to_thread(records.close)


async def fetched(gateway: Gateway | GatewayProcess, url: str) -> zipfile.ZipFile:
    """The zip that a signed URL leads to."""
    parts = urlsplit(url)
    assert parts.netloc == "{}:{}".format(*gateway.address)
    answer = await get(gateway, f"{parts.path}?{parts.query}")
    assert answer.status == 200
    return zipfile.ZipFile(io.BytesIO(answer.body))


async def followed(gateway: Gateway | GatewayProcess, where: str, *lines: str) -> RawResponse:
    """Ask a status page until it leads elsewhere or tells of a failure."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        answer = await get(gateway, where, *lines)
        if answer.status != 200 or answer.json["state"] in ("done", "failed"):
            return answer
        assert answer.headers["Retry-After"] == "1"
        await asyncio.sleep(0.05)  # the page is what a client has
    raise AssertionError(answer.json)


def exports(directory: Path) -> list[str]:
    found = files_below(directory / "exports") if (directory / "exports").exists() else {}
    return [name for name in found if not name.startswith("orders/")]


# -- what comes out


async def test_the_records_of_some_days_come_as_csv_and_json_behind_a_signed_url(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    await fill(running)
    answer = await get(running, RANGE)
    assert answer.status == 303
    assert answer.headers["Cache-Control"] == "no-store"
    archive = await fetched(running, answer.headers["Location"])
    assert archive.namelist() == [f"photos_2026-01-01_2026-01-31.{suffix}" for suffix in ("csv", "json")]
    table, listed = (archive.read(name).decode("utf-8-sig") for name in archive.namelist())
    expected = [{**PHOTOS[key], "key": key} for key in "abc"]
    assert json.loads(listed) == expected
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [row["key"] for row in rows] == ["a", "b", "c"]
    assert [row["title"] for row in rows] == ["'=first", "ünïcode", "text"]
    assert rows[2]["tags"] == '["x"]'
    [name] = exports(tmp_path / "data")
    assert re.fullmatch(r"anonymous/photos_2026-01-01_2026-01-31_[0-9a-f]{12}-1\.zip", name)


async def test_whoever_prefers_json_is_told_the_url_and_when_it_ends(
    start_gateway: StartGateway, exporter: Exporter
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    await fill(running)
    told = (await get(running, RANGE, JSON)).json
    assert (told["state"], told["records"], told["percent"]) == ("done", 3, 100)
    ends = datetime.fromisoformat(told["expires"]).timestamp()
    assert ends == pytest.approx(time.time() + 900, abs=30)
    [expires] = re.findall(r"X-Gateway-Expires=(\d+)", told["url"])
    assert int(expires) == pytest.approx(ends, abs=30)
    assert len((await fetched(running, told["url"])).namelist()) == 2


async def test_an_empty_range_makes_an_empty_export(
    start_gateway: StartGateway, exporter: Exporter
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    answer = await get(running, RANGE)
    archive = await fetched(running, answer.headers["Location"])
    assert json.loads(archive.read("photos_2026-01-01_2026-01-31.json")) == []


async def test_who_owns_records_gets_their_own_only_where_the_config_says_so(
    start_gateway: StartGateway, exporter: Exporter
) -> None:
    running = await start_gateway(
        auth="token", plugins=[str(exporter(owner_field="owner"))], tokens=TOKENS
    )
    await fill(
        running,
        {f"{n}": {"created": at(2026, 1, 2), "owner": "ada" if n % 2 else "bob"} for n in range(9)},
    )
    told = (await get(running, RANGE, JSON, ADA)).json
    assert told["records"] == 4
    assert (await get(running, RANGE, JSON, BOB)).json["records"] == 5


async def test_a_namesake_who_is_known_in_another_way_gets_none_of_them(
    start_gateway: StartGateway, exporter: Exporter
) -> None:
    folder = exporter(owner_field="owner", owner_kind_field="ownerKind")
    running = await start_gateway(auth="token", plugins=[str(folder)], tokens=TOKENS)
    kinds = ("token", "jwt", None)
    items = {
        f"{n}": {"created": at(2026, 1, 2), "owner": "ada", "ownerKind": kinds[n % 3]} for n in range(9)
    }
    await fill(running, items)
    assert (await get(running, RANGE, JSON, ADA)).json["records"] == 3


# -- one for all who ask the same


async def test_equal_questions_at_once_share_one_export(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    await fill(running)
    answers = await asyncio.gather(*(get(running, RANGE, JSON) for _ in range(12)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(exports(tmp_path / "data")) == 1
    other = await get(running, "/exports?from=2026-01-01&to=2026-01-30", JSON)
    assert other.json["id"] != answers[0].json["id"]


@pytest.mark.slow
async def test_equal_questions_to_several_processes_share_one_export(
    gateway_process: StartProcess, exporter: Exporter, tmp_path: Path
) -> None:
    running = gateway_process("--plugins", str(exporter()), "--processes", "2")
    answers = await asyncio.gather(*(get(running, RANGE, JSON) for _ in range(12)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(exports(tmp_path / "data")) == 1


# -- others


TOKENS = [f"{name}:{token_digest(f'secret-of-{name}')}" for name in ("ada", "bob")]
ADA, BOB = (f"X-Auth-Token: secret-of-{name}" for name in ("ada", "bob"))


async def test_an_export_is_there_for_its_caller_only(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    running = await start_gateway(auth="token", tokens=TOKENS, plugins=[str(exporter())])
    await fill(running)
    assert (await get(running, RANGE)).status == 401
    told = (await get(running, RANGE, ADA, JSON)).json
    theirs = (await get(running, RANGE, BOB, JSON)).json
    assert told["id"] != theirs["id"]
    assert (await get(running, f"/exports/{told['id']}", ADA)).status == 303
    refused = await get(running, f"/exports/{told['id']}", BOB)
    assert (refused.status, refused.json["error"]) == (404, "not_found")
    assert (await get(running, f"/exports/{told['id']}")).status == 401
    parts = urlsplit(told["url"])
    [own, other] = sorted(exports(tmp_path / "data"))
    assert own.startswith("ada-")
    stolen = parts.path.replace(own, other)
    assert stolen != parts.path
    assert (await get(running, f"{stolen}?{parts.query}")).status == 403
    assert (await get(running, parts.path, BOB)).status in (401, 403)
    assert (await get(running, f"{parts.path}?{parts.query}")).status == 200


# -- long ones, killed ones, failed ones


def held_up_by(go: Path) -> dict[str, list[tuple[str, str]]]:
    """The changes for a builder that tells of one record, and goes on when `go` is there."""
    wait = f"""\
            while cursor is not None and not __import__("os").path.exists({str(go)!r}):
                await asyncio.sleep(0.01)
"""
    return {
        "export_building.py": [
            ("PAGE: Final = 250", "PAGE: Final = 1"),
            ("BEAT: Final = 1.0", "BEAT: Final = 0.0"),
            ("            yield found,", f"{wait}            yield found,"),
        ]
    }


async def until_one_is_told(gateway: Gateway | GatewayProcess, status: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        while True:
            told = (await get(gateway, status)).json
            if (told["state"], told["records"]) == ("building", 1):
                return
            await asyncio.sleep(0.02)  # the page is what a client has


async def test_a_long_export_is_told_of_while_it_is_built(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    folder = exporter(held_up_by(tmp_path / "go"), answer_within=0)
    running = await start_gateway(auth="none", plugins=[str(folder)])
    await fill(running)
    accepted = await get(running, RANGE)
    assert accepted.status == 202
    assert accepted.headers["Location"] == accepted.json["status"] == f"/exports/{accepted.json['id']}"
    await until_one_is_told(running, accepted.json["status"])
    (tmp_path / "go").touch()
    answer = await followed(running, accepted.json["status"])
    assert answer.status == 303
    assert len((await fetched(running, answer.headers["Location"])).namelist()) == 2


@pytest.mark.slow
async def test_an_export_whose_gateway_is_killed_is_built_after_the_restart(
    gateway_process: StartProcess, exporter: Exporter, tmp_path: Path
) -> None:
    folder = exporter(held_up_by(tmp_path / "go"), answer_within=0)
    await fill_folder(tmp_path / "kept")
    flags = ("--plugins", str(folder))
    running = gateway_process(*flags, directory=tmp_path / "kept")
    accepted = (await get(running, RANGE)).json
    await until_one_is_told(running, accepted["status"])
    running.kill()
    assert exports(tmp_path / "kept") == []
    (tmp_path / "go").touch()
    again = gateway_process(*flags, directory=tmp_path / "kept")
    answer = await followed(again, accepted["status"], JSON)
    assert (answer.json["state"], answer.json["records"]) == ("done", 3)
    archive = await fetched(again, answer.json["url"])
    assert len(json.loads(archive.read("photos_2026-01-01_2026-01-31.json"))) == 3
    assert len(exports(tmp_path / "kept")) == 1


async def test_an_export_that_cannot_be_made_ends_as_failed(
    start_gateway: StartGateway, exporter: Exporter, caplog: pytest.LogCaptureFixture
) -> None:
    impatient = {
        "build.yaml": [
            ("attempts: 5, backoff: 2.0", "attempts: 2, backoff: 0.05"),
            ("ATTEMPTS = 5", "ATTEMPTS = 2"),
        ]
    }
    running = await start_gateway(auth="none", plugins=[str(exporter(impatient, field="no such field"))])
    answer = await get(running, RANGE)
    assert (answer.status, answer.json["error"]) == (500, "export_failed")
    assert "no such field" not in answer.body.decode()
    told = await get(running, f"/exports/{answer.json['id']}")
    assert (told.status, told.json["state"]) == (200, "failed")
    assert "no such field" in str([vars(record) for record in caplog.records])


async def test_too_many_records_are_told_at_once(
    start_gateway: StartGateway, exporter: Exporter
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter(max_records=2))])
    await fill(running)
    answer = await get(running, RANGE)
    assert answer.status == 500
    assert answer.json["message"] == "there are more than 2 records: ask for fewer days"


# -- the end


async def test_what_has_expired_is_swept_with_its_record(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    often = {"sweep.yaml": [("every: 15m", "every: 1s")]}
    running = await start_gateway(auth="none", plugins=[str(exporter(often))])
    await fill(running)
    told = (await get(running, RANGE, JSON)).json
    [name] = exports(tmp_path / "data")
    kept = running.resources.scripts.records("exports")
    item = await kept.get(told["id"])
    assert item
    await kept.put(told["id"], {**item, "beat": time.time() - 86401})
    os.utime(tmp_path / "data/exports" / name, (0, time.time() - 86401))
    deadline = time.monotonic() + TIMEOUT
    while exports(tmp_path / "data") or await kept.get(told["id"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (await get(running, f"/exports/{told['id']}")).status == 404
    assert (await get(running, told["url"].partition(":")[2].partition("/")[2])).status >= 400


async def test_other_folders_expire_too_each_after_its_time(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    often = {"sweep.yaml": [("every: 15m", "every: 1s")]}
    folder = exporter(often, expire_after={"/previews/": 10, "/kept/": 1000})
    for name in ("previews/old", "kept/old", "other/old"):
        place = tmp_path / "data" / name
        place.parent.mkdir(parents=True)
        place.touch()
        os.utime(place, (0, time.time() - 100))
    await start_gateway(auth="none", plugins=[str(folder)])
    deadline = time.monotonic() + TIMEOUT
    while (tmp_path / "data/previews/old").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert (tmp_path / "data/kept/old").exists()
    assert (tmp_path / "data/other/old").exists()


async def test_orders_are_taken_away_when_they_have_been_carried_out(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    await get(running, RANGE)
    deadline = time.monotonic() + TIMEOUT
    while any((tmp_path / "data/exports/orders").iterdir()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# -- who asks too much


async def test_a_caller_with_many_unfinished_exports_is_told_to_wait(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    folder = exporter(held_up_by(tmp_path / "go"), answer_within=0, max_queued=2)
    running = await start_gateway(auth="none", plugins=[str(folder)])
    # Each of the three ranges has more than one page: an export of one page is not held up.
    await fill(running, PHOTOS | {"second": {"created": at(2026, 1, 2)}})
    days = [f"/exports?from=2026-01-01&to=2026-01-{day}" for day in (29, 30, 31)]
    answers = [await get(running, target) for target in days]
    assert [answer.status for answer in answers] == [202, 202, 429]
    assert answers[2].headers["Retry-After"] == "10"
    (tmp_path / "go").touch()
    for answer in answers[:2]:
        assert (await followed(running, answer.json["status"])).status == 303
    assert (await get(running, days[2])).status == 202


async def test_requests_for_exports_are_limited_and_pages_of_other_sites_order_none(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    running = await start_gateway(auth="none", plugins=[str(exporter())])
    image = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")
    assert (await get(running, RANGE, *image)).status == 403
    assert exports(tmp_path / "data") == []
    assert (await get(running, RANGE, "Sec-Fetch-Site: same-origin")).status == 303
    statuses = [(await get(running, "/exports")).status for _ in range(59)]
    assert statuses == [400] * 58 + [429]


# -- in a bucket


@pytest.mark.slow
async def test_exports_lie_in_a_bucket_which_signs_for_them_and_removes_them_by_a_rule(
    gateway_process: StartProcess,
    exporter: Exporter,
    s3: SeaweedFS,
    s3_storage: str,
    bucket: str,
    tmp_path: Path,
) -> None:
    often = {"sweep.yaml": [("every: 15m", "every: 1s")]}
    await fill_folder(tmp_path / "data")
    running = gateway_process("--plugins", str(exporter(often)), "--storage", s3_storage)
    answers = await asyncio.gather(*(get(running, RANGE, JSON) for _ in range(5)))
    [url] = {answer.json["url"].partition("?")[0] for answer in answers}
    assert url.startswith(f"{s3.url}/{bucket}/a%20prefix/exports/anonymous/")
    async with aiohttp.ClientSession() as session:
        async with session.get(URL(answers[0].json["url"], encoded=True)) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Disposition"].startswith("attachment")
            archive = zipfile.ZipFile(io.BytesIO(await answer.read()))
        async with session.get(URL(url, encoded=True)) as bare:
            assert bare.status == 403
    assert len(json.loads(archive.read("photos_2026-01-01_2026-01-31.json"))) == 3
    assert not (tmp_path / "data/exports").exists()
    deadline = time.monotonic() + TIMEOUT
    while "a prefix/exports/* is removed after 1 days" not in running.log():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    async with s3.client() as store:
        rules = await store.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert [rule["Filter"]["Prefix"] for rule in rules["Rules"]] == ["a prefix/exports/"]


def test_the_plugin_passes_its_own_tests() -> None:
    assert check([PLUGIN]) == 0


# -- with PostgreSQL


@pytest.mark.slow
async def test_exports_are_made_of_records_in_postgresql(
    start_gateway: StartGateway, exporter: Exporter, tmp_path: Path
) -> None:
    with server() as database:
        running = await start_gateway(auth="none", plugins=[str(exporter())], records=database.url)
        await fill(running)
        answers = await asyncio.gather(*(get(running, RANGE, JSON) for _ in range(8)))
        assert {answer.json["records"] for answer in answers} == {3}
        assert len(exports(tmp_path / "data")) == 1
        archive = await fetched(running, answers[0].json["url"])
        assert len(json.loads(archive.read("photos_2026-01-01_2026-01-31.json"))) == 3
