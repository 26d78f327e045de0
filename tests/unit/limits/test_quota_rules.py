"""Whom an upload counts for, and what a client is told."""

from __future__ import annotations

import pytest

from gateway.commit.quotas.refusals import binary_size, quota_refusal
from gateway.domain.model import Upload
from gateway.domain.quotas import MAX_KEY_LENGTH, Quota, QuotaLimits, shortened
from gateway.limits.quota_operations import Exceeded
from gateway.limits.quota_rules import QuotaRules, owner_of
from tests.support.quotas import bound

BYTES = QuotaLimits(bytes=1)
RULES = QuotaRules(
    [
        Quota(BYTES, per="principal"),
        Quota(BYTES, prefix="/upload/few/"),
        Quota(BYTES, per="tenant", prefix="/upload/t/"),
        Quota(BYTES, per="address"),
    ]
)


def keys(path: str, principal: dict[str, str] | None, remote: str = "192.0.2.1") -> list[str]:
    upload = Upload("U", path, {"tenant": "acme", "filepath": "x"}, principal=principal, remote=remote)
    return [quota.key for quota in RULES.of_upload(upload)]


def test_an_upload_counts_for_each_quota_that_covers_it() -> None:
    alice = {"name": "alice", "kind": "token"}
    assert keys("/upload/x", alice) == ["per principal alice (token)", "per address 192.0.2.1"]
    assert "prefix /upload/few/" in keys("/upload/few/x", alice)
    assert "prefix /upload/few/" not in keys("/upload/fewer", alice)
    assert "prefix /upload/t/ per tenant acme" in keys("/upload/t/x", alice)


@pytest.mark.parametrize("principal", [None, {"name": "", "kind": "signed"}])
def test_who_has_no_name_counts_by_address_and_an_ipv6_network_is_one_client(
    principal: dict[str, str] | None,
) -> None:
    told = "per principal 2001:db8::/64 (address)"
    assert told in keys("/upload/x", principal, "2001:db8::1")
    assert told in keys("/upload/x", principal, "2001:db8::2")


def test_what_scripts_save_counts_for_prefixes_alone() -> None:
    assert keys("/upload/few/x", {"name": "script", "kind": "script"}) == ["prefix /upload/few/"]


def test_a_variable_that_names_a_file_is_no_owner() -> None:
    assert "filepath" not in owner_of(None, "192.0.2.1", {"filepath": "x"})


def test_a_key_is_bounded_and_can_be_written_to_any_database() -> None:
    first, second = shortened("k" * 5000 + "a"), shortened("k" * 5000 + "b")
    assert first != second
    assert len(first) < 2 * MAX_KEY_LENGTH
    assert shortened("a\0b\ud800") == "a\\0b\\ud800"


def test_the_limits_of_a_key_are_those_of_its_own_quota() -> None:
    rules = QuotaRules([Quota(BYTES, prefix="/a/"), Quota(QuotaLimits(bytes=2), "principal", "/a/")])
    assert rules.limits_of("prefix /a/").bytes == 1
    assert rules.limits_of("prefix /a/ per principal x (token)").bytes == 2
    assert rules.limits_of("quota own").bytes is None


def test_a_refusal_says_whose_limit_it_is_and_when_to_come_back() -> None:
    stored = quota_refusal(
        Exceeded(bound("per principal acme", bytes=10 << 30), "bytes", 10_737_000_000), 200 << 20, 0.0
    )
    assert (stored.status, stored.code) == (507, "quota_exceeded")
    assert stored.message == "per principal acme: 9.9 GiB of 10 GiB used, this upload has 200 MiB"
    files = quota_refusal(Exceeded(bound("prefix /a/", files=3), "files", 3), 1, 0.0)
    assert files.message == "prefix /a/: 3 of 3 files used"
    daily = quota_refusal(
        Exceeded(bound("key ci", bytes_per_day=9), "bytes_per_day", 5), 5, 86_400 * 3 + 86_000
    )
    assert (daily.status, daily.headers["Retry-After"]) == (429, "400")


def test_what_is_more_than_a_whole_day_allows_is_not_told_to_come_back() -> None:
    refusal = quota_refusal(Exceeded(bound("key ci", bytes_per_day=9), "bytes_per_day", 0), 10, 0.0)
    assert (refusal.status, refusal.headers) == (507, {})
    assert refusal.message == "key ci: 0 B of 9 B used today (UTC), this upload has 10 B"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1535, "1.4 KiB"),
        (5 << 30, "5 GiB"),
        (1 << 60, "1024 PiB"),
    ],
)
def test_sizes_are_told_as_settings_take_them_and_never_rounded_up(size: int, text: str) -> None:
    assert binary_size(size) == text
