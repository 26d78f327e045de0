"""Which refusals end an upload for good."""

from __future__ import annotations

import pytest

from gateway.endpoints.uploads.resumable.completion import ends_upload
from gateway.errors import TABLE, Refusal

LATER = {
    "internal", "bad_gateway", "hook_failed", "issuer_unavailable", "journal_unavailable", "overloaded",
    "process_unavailable", "records_unavailable", "stopping", "storage_unavailable", "gateway_timeout",
    "upstreams_unavailable", "sessions_unavailable", "no_space", "quota_exceeded", "locked",
    "too_many_requests",
}  # fmt: skip


@pytest.mark.parametrize("code", TABLE)
def test_what_is_not_the_fault_of_the_upload_can_be_tried_again(code: str) -> None:
    assert ends_upload(Refusal(code, "")) is (code not in LATER)
