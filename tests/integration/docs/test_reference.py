"""The reference pages name all that there is, and nothing that there is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

from gateway.domain.event_bodies import deleting_event, downloading_event, listing_event
from gateway.domain.model import (
    DELETING,
    DOWNLOADING,
    LISTING,
    OBJECT_CREATED,
    UPLOAD_FAILED,
    UPLOADED,
    UPLOADING,
    Download,
    FileRequest,
)
from gateway.plugins import models
from tests.conftest import StartGateway
from tests.support.harness import get, put, wait_settled, write_plugin
from tests.support.reference_pages import page, rows, section

# -- HTTP


# -- plugins


# -- events


NOTE = """
- name: noteUploading
  event: APIGW.OnFileUploading
  script: &script |
    def note(event):
        signs = "-".join(str(key in event) for key in ("key", "attempt", "reason"))
        with open(f"FOLDER/{event['path'][-3:]}-{signs}", "w") as file:
            json.dump(list(event), file)
    async def noteUploading(event, handle): note(event)
    async def noteUploaded(event, handle): note(event)
    async def noteFailed(event, handle): note(event)
    async def noteCreated(event, handle): note(event)
- {name: noteUploaded, event: APIGW.OnFileUploaded, script: *script}
- {name: noteFailed, event: APIGW.OnFileUploadFailed, script: *script}
- {name: noteCreated, event: APIGW.OnObjectCreated, script: *script}
"""


async def test_every_key_of_a_real_event_is_documented(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    folder = write_plugin(tmp_path / "p", NOTE.replace("FOLDER", str(notes)))
    running = await start_gateway(auth="none", plugins=[str(folder)])
    assert (await put(running, "/upload/a.ok")).status == 201
    refused = await put(running, "/upload/a.no", b"x", f"Content-MD5: {'A' * 22}==")
    assert refused.json["error"] == "digest_mismatch"
    await wait_settled(running)
    await running.resources.hooks.close(5)
    said = {name: _untraced_keys(section(page("events.md"), f"## {name}")) for name in models.EVENTS}
    [*uploading, _max_bytes, _on_conflict, _metadata, _quotas] = said[UPLOADING]
    noted = {note.name: set(json.loads(note.read_text())) for note in notes.iterdir()}
    assert noted[".ok-False-False-False"] == set(uploading)
    assert noted[".ok-False-True-False"] == set(said[UPLOADED])
    assert noted[".no-False-False-True"] == set(said[UPLOAD_FAILED])
    assert noted[".ok-True-True-False"] == set(said[OBJECT_CREATED])
    assert said[DOWNLOADING] == list(downloading_event(Download("a", "/a")))
    assert said[LISTING] == list(listing_event(FileRequest("a", "/a/")))
    assert said[DELETING] == list(deleting_event(FileRequest("a", "/a")))


def _untraced_keys(text: str) -> list[str]:
    """Return the keys of a table, without those that are there only with `--otlp`."""
    return [
        row[0].strip("`")
        for row in rows(text)
        if not row[2].startswith(("only with `--otlp`", "only with [`--otlp`]"))
    ]


# -- command line and metrics


async def test_every_metric_is_documented_with_type_and_labels(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    folder = write_plugin(tmp_path / "p", NOTE.replace("FOLDER", str(notes)))
    running = await start_gateway(auth="none", plugins=[str(folder)])
    assert (await put(running, "/upload/a.ok")).status == 201
    await wait_settled(running)
    text = (await get(running, "/-/metrics")).body.decode()
    there_are = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    table = {row[0].strip("`"): row for row in rows(page("metrics.md"))}
    assert {name: row[1] for name, row in table.items()} == there_are
    for name, row in table.items():
        labels = re.search(rf"^{name}(?:_count)?\{{(.*?)\}}", text, re.MULTILINE)
        if labels:
            assert re.findall(r"(\w+)=", labels[1]) == re.findall(r"`(\w+)`", row[2])


# -- what other pages say of the program
