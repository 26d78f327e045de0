"""The setting `quotas`: what it takes, and where it points at a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain.quotas import Quota, QuotaLimits
from gateway.domain.units import RequestRate
from gateway.errors import ConfigError
from gateway.settings import load


def quotas_of(folder: Path, text: str) -> tuple[Quota, ...]:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config/gateway.yaml").write_text(text)
    return load({"directory": str(folder)}, {}).quota_rules


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises((ConfigError, ExceptionGroup)) as raised:
        quotas_of(folder, text)
    errors = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else [raised.value]
    return [str(error).removeprefix(f"{folder}/config/") for error in errors]


def test_limits_take_units_and_may_stand_together(tmp_path: Path) -> None:
    text = (
        'file_upload_api_path: "/upload/{tenant_id}/{filepath}"\n'
        "quotas: [{per: principal, bytes: 10G}, {prefix: /upload/few/, files: 100},"
        " {per: tenant_id, bytes_per_day: 5G, requests: 100/m}]\n"
    )
    assert quotas_of(tmp_path, text) == (
        Quota(QuotaLimits(bytes=10 << 30), per="principal"),
        Quota(QuotaLimits(files=100), prefix="/upload/few/"),
        Quota(QuotaLimits(bytes_per_day=5 << 30, requests=RequestRate(100, 60.0)), per="tenant_id"),
    )


def test_flags_and_the_environment_spell_a_quota_in_one_text() -> None:
    given = load({"directory": "/", "quotas": ["per=principal bytes=1K", "prefix=/a/ files=3"]}, {})
    environ = {"UPLOAD_GATEWAY_QUOTAS": "per=principal bytes=1K, prefix=/a/ files=3"}
    assert given.quota_rules == load({"directory": "/"}, environ).quota_rules
    assert [quota.scope for quota in given.quota_rules] == ["per principal", "prefix /a/"]


def test_mistakes_are_told_with_their_line(tmp_path: Path) -> None:
    text = (
        "quotas:\n- {per: principal, bytez: 3}\n- {bytes: 4}\n- {per: principal}\n"
        "- {prefix: upload, requests: 3}\n- {per: address, bytes: many}\n"
    )
    assert faults(tmp_path, text) == [
        "gateway.yaml:2: quotas[1].bytez: is not a known key (got '3')",
        "gateway.yaml:3: quotas[2]: says not what counts together: add `per: principal` or"
        " `prefix: /folder/`",
        "gateway.yaml:4: quotas[3]: has no limit: add bytes, files, bytes_per_day or requests",
        "gateway.yaml:5: quotas[4].prefix: must be the path of a folder, with a slash at both ends:"
        " /upload/few/ (got 'upload')",
        "gateway.yaml:5: quotas[4].requests: must be a number of requests and a time, such as 10/m, 5/s"
        " or 1000/d (got '3')",
        "gateway.yaml:6: quotas[5].bytes: must be a number of bytes such as 1048576, 64M, 64MiB or 64MB"
        " (got 'many')",
    ]


def test_per_is_a_variable_of_the_upload_path_that_names_no_file(tmp_path: Path) -> None:
    assert faults(tmp_path, "quotas: [{per: tenant_id, files: 1}]\n") == [
        "gateway.yaml:1: quotas[1].per: 'tenant_id' must be principal or address, or a variable of"
        " --file_upload_api_path"
    ]
    path = 'file_upload_api_path: "/{tenant}/{filename}"\n'
    assert faults(tmp_path, f"{path}quotas:\n- {{per: filename, files: 1}}\n") == [
        "gateway.yaml:3: quotas[1].per: 'filename' must be principal, address or tenant"
    ]


def test_two_quotas_that_count_the_same_are_one_mistake(tmp_path: Path) -> None:
    text = "quotas:\n- {per: principal, bytes: 1}\n- {per: principal, files: 1}\n"
    assert faults(tmp_path, text) == [
        "gateway.yaml:3: quotas[2]: counts the same as an earlier quota: put their limits into one"
    ]
