"""Rules of partial uploads: who may go on with one, and until when."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from gateway.domain.grant import Grant
from gateway.domain.model import Upload, new_id
from gateway.domain.partial import (
    CONCAT_FIELD,
    JOINED_TTL,
    MAX_PARTIAL_AGE,
    ONE_TIME_TTL,
    PARTIAL_TTL,
    PartialHead,
    PartialStatus,
    check_identity_order,
    may_continue,
    ranged_identity,
)
from gateway.errors import Refusal
from gateway.storage.local.one_time_marks import CONSUME_TTL

ALICE = {"name": "alice", "kind": "token"}
BOB = {"name": "bob", "kind": "token"}
OTHER_ALICE = {"name": "alice", "kind": "jwt", "claims": {}}
SIGNED = {"name": "signed url", "kind": "signed"}


@pytest.mark.parametrize(
    ("creator", "principal", "may"),
    [
        (None, None, True),
        (None, ALICE, True),
        (ALICE, ALICE, True),
        (ALICE, BOB, False),
        (ALICE, None, False),
        (ALICE, OTHER_ALICE, False),
        (SIGNED, None, True),
        (SIGNED, ALICE, True),
    ],
)
def test_an_upload_is_that_of_its_creator(
    creator: dict[str, Any] | None, principal: dict[str, Any] | None, may: bool
) -> None:
    assert may_continue(creator, principal) is may


def status(latest: float, grant: Grant | None = None) -> PartialStatus:
    upload = Upload("id", "/upload/x", created=1000.0, grant=grant)
    return PartialStatus(PartialHead(upload, "/upload/x", "draft", "client"), 5, 9, latest)


def test_life_counts_from_the_latest_byte_and_has_an_end() -> None:
    assert status(1000.0).expires == 1000.0 + PARTIAL_TTL
    assert status(1000.0 + MAX_PARTIAL_AGE - 1).expires == 1000.0 + MAX_PARTIAL_AGE


def test_a_file_that_was_being_made_of_parts_does_not_wait_for_a_client_without_its_url() -> None:
    joined = status(2000.0)
    joined.head.upload.kept_headers[CONCAT_FIELD] = "final;?upload=x"
    assert joined.expires == 1000.0 + JOINED_TTL


def test_an_upload_of_a_one_time_url_ends_while_the_url_can_be_used_up() -> None:
    grant = Grant("PUT", "/upload/x", expires=1060, once="n" * 16)
    late = status(1000.0 + 2 * PARTIAL_TTL, grant)
    assert late.expires == 1060 + ONE_TIME_TTL
    assert ONE_TIME_TTL <= CONSUME_TTL
    assert status(1000.0, Grant("PUT", "/upload/x", expires=1060)).expires == 1000.0 + PARTIAL_TTL


def test_no_two_principals_paths_or_keys_share_an_identity() -> None:
    identities = {
        ranged_identity(path, principal, key)
        for path in ("/upload/a", "/upload/b")
        for principal in (None, ALICE, BOB, OTHER_ALICE)
        for key in ("", "k" * 16)
    }
    assert len(identities) == 16


@pytest.mark.parametrize(("seconds", "refused"), [(-1, False), (0, False), (1, True), (61, False)])
def test_an_identity_passes_to_a_newer_request_also_where_a_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch, seconds: int, refused: bool
) -> None:
    now = time.time_ns()
    upload_id = new_id(0)
    monkeypatch.setattr(time, "time_ns", lambda: now + seconds * 1_000_000_000)
    holder = new_id(0)
    with pytest.raises(Refusal) if refused else contextlib.nullcontext():
        check_identity_order(holder, upload_id)
