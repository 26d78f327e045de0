"""Events as messages of NATS: what one gateway writes another one reads."""

from __future__ import annotations

import json

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
    ("identity", "etag"), [([1, 2, 3, 4], Identity(1, 2, 3, 4).etag), ([0, 9, 3, 0], None)]
)
def test_a_message_that_names_its_file_by_inode_has_its_etag_where_it_is_a_file(
    identity: list[int], etag: str | None
) -> None:
    written = json.loads(encode(EVENT, "h", Origin("http")))
    written["origin"] = {"scheme": "http", "identity": identity}
    assert decode(json.dumps(written).encode()) == (EVENT, "h", Origin("http", etag))
