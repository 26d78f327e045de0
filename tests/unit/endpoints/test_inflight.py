"""Uploads in flight, each client's share of them."""

from __future__ import annotations

import pytest

from gateway.domain.model import Upload
from gateway.endpoints import inflight as inflight_module
from gateway.endpoints.inflight import Inflight
from gateway.errors import Refusal


def test_a_client_with_its_share_of_uploads_in_flight_leaves_the_rest_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inflight_module, "MAX_UPLOADS", 4)
    inflight = Inflight()
    held = [inflight.begin_upload(Upload(f"a{n}", "/x", remote="192.0.2.1")) for n in range(2)]
    with pytest.raises(Refusal, match="2 of at most 4 uploads in flight") as caught:
        inflight.begin_upload(Upload("a2", "/x", remote="192.0.2.1"))
    assert caught.value.code == "too_many_requests"
    by_token = Upload("b0", "/x", remote="192.0.2.1", principal={"name": "b", "kind": "token"})
    inflight.begin_upload(by_token)
    for progress in held:
        inflight.end_upload(progress.upload.id)
    inflight.begin_upload(Upload("a3", "/x", remote="192.0.2.1"))
    assert len(inflight) == 2
