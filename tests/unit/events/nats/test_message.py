"""Events as messages of NATS: what one gateway writes another one reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.domain.model import UPLOADED, Identity, Origin
from gateway.events.nats.message import decode, encode
from gateway.events.protocols import NewEvent

EVENT = NewEvent(
    id="e",
    type=UPLOADED,
    handlers=("h",),
    body={"path": "/x"},
    created=1.5,
    upload_id="u",
    path="/x",
    holder="owner.example:8080",
)


@pytest.mark.parametrize("origin", [None, Origin("https"), Origin("http", "the-etag")])
def test_an_event_and_its_origin_are_read_as_they_were_written(origin: Origin | None) -> None:
    assert decode(encode(EVENT, "h", origin)) == (EVENT, "h", origin)


@pytest.mark.parametrize(
    ("names", "etag"),
    [
        ({"identity": [1, 2, 3, 4]}, Identity(2, 3, 4).etag),
        ({"identity": [0, 9, 3, 0]}, None),
        ({"etag": "0123456789abcdef01234567"}, None),
        ({"etag": "9b2cf535f27731c974343645a3985328-3"}, "9b2cf535f27731c974343645a3985328-3"),
    ],
    ids=["file by inode", "object by nothing", "tag with the device", "tag of an object"],
)
def test_messages_of_earlier_versions_are_read_without_the_device(
    names: dict[str, Any], etag: str | None
) -> None:
    written = json.loads(encode(EVENT, "h", Origin("http")))
    written["origin"] = {"scheme": "http", **names}
    assert decode(json.dumps(written).encode()) == (EVENT, "h", Origin("http", etag))
