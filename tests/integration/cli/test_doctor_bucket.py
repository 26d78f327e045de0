"""`gateway doctor` and buckets: real servers that can more or less, and what is wrong named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.cli.doctor import bucket as module
from gateway.cli.doctor.finding import Finding
from gateway.settings import Bucket, Settings
from tests.support.s3.servers import Rclone, SeaweedFS


def findings(directory: Path, name: str, **more: object) -> list[Finding]:
    values = {"directory": directory, "storage": Bucket(name, "a prefix"), **more}
    return list(module.bucket(Settings.model_validate(values)))


def said(found: list[Finding], words: str) -> str:
    (level,) = [finding.level for finding in found if words in str(finding)]
    return level


def test_where_files_are_kept_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert list(module.bucket(Settings(directory=tmp_path))) == []


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, "bucket")
    assert found.level == "FAIL"
    assert "AWS_ACCESS_KEY_ID" in str(found)


def test_a_server_that_is_not_there_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SeaweedFS(tmp_path).set_environment(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    (found,) = findings(tmp_path, "bucket")
    assert found.level == "FAIL"
    assert "AWS_ENDPOINT_URL_S3" in found.advice


@pytest.mark.slow
async def test_a_sound_bucket_has_no_failure_and_keeps_no_trace(
    tmp_path: Path, s3: SeaweedFS, s3_storage: str
) -> None:
    name = s3_storage.split("/")[2]
    found = await asyncio.to_thread(findings, tmp_path, name)
    assert said(found, "is available at") == "ok"
    assert said(found, "put, read and removed") == "ok"
    assert said(found, "If-None-Match") == "ok"
    assert said(found, "the clock agrees") == "ok"
    assert said(found, "no lifecycle rule") == "warn"
    assert said(found, "no web page may use") == "ok"
    async with s3.client() as client:
        assert "Contents" not in await client.list_objects_v2(Bucket=name)


@pytest.mark.slow
async def test_rules_that_are_set_are_recognised(
    tmp_path: Path, s3: SeaweedFS, s3_storage: str, bucket: str
) -> None:
    rule = {"ID": "unfinished", "Status": "Enabled", "Filter": {"Prefix": ""}}
    rule |= {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    cors = {"AllowedMethods": ["PUT", "GET"], "AllowedOrigins": ["https://a.example"]}
    async with s3.client() as client:
        rules = {"Rules": [{**rule, "Expiration": {"Days": 3650}}]}
        await client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
        await client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [cors]})
    origins = ("https://a.example", "https://b.example")
    known = await asyncio.to_thread(findings, tmp_path, bucket, cors_origins=origins[:1])
    assert said(known, "https://a.example may put") == "ok"
    other = await asyncio.to_thread(findings, tmp_path, bucket, cors_origins=origins)
    assert said(other, "do not allow https://b.example") == "warn"


@pytest.mark.slow
async def test_a_rule_that_aborts_uploads_which_may_go_on_is_named(
    tmp_path: Path, s3: SeaweedFS, s3_storage: str, bucket: str
) -> None:
    rule = {"ID": "unfinished", "Status": "Enabled", "Filter": {"Prefix": ""}}
    rule |= {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}
    async with s3.client() as client:
        rules = {"Rules": [{**rule, "Expiration": {"Days": 3650}}]}
        await client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    named = await asyncio.to_thread(findings, tmp_path, bucket)
    assert said(named, "aborts multipart uploads after 1 days") == "warn"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another-secret"}, "credentials may not"),
        ({"AWS_ACCESS_KEY_ID": "AKIDNOBODY"}, "credentials may not"),
    ],
)
async def test_wrong_credentials_are_a_failure(
    tmp_path: Path,
    s3_storage: str,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, str],
    advice: str,
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    (found,) = await asyncio.to_thread(findings, tmp_path, bucket)
    assert found.level == "FAIL"
    assert advice in found.advice
    assert "another-secret" not in str(found)


@pytest.mark.slow
async def test_a_bucket_that_is_not_there_is_a_failure(tmp_path: Path, s3_storage: str) -> None:
    (found,) = await asyncio.to_thread(findings, tmp_path, "no-such-bucket")
    assert found.level == "FAIL"
    assert "make the bucket" in found.advice


@pytest.mark.slow
async def test_a_store_that_can_less_is_told_so(
    tmp_path: Path, rclone: Rclone, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rclone.make(bucket)
    rclone.set_environment(monkeypatch)
    found = await asyncio.to_thread(findings, tmp_path, bucket)
    assert said(found, "ignores If-None-Match") == "warn"
    assert said(found, "put, read and removed") == "ok"
    assert not [one for one in found if one.level == "FAIL"]
