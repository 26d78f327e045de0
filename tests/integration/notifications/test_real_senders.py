"""Notifications as a real sender sends them: S3 tells SNS, SNS tells the gateway over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import get_session

from tests.conftest import StartProcess
from tests.integration.notifications.test_notifications import HANDLER, seen
from tests.support.harness import wait_settled, write_plugin
from tests.support.jwt.cognito import moto_server
from tests.support.notifications.samples import KEY

pytestmark = pytest.mark.slow

SECONDS = 60.0
PART = 5 << 20


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A moto server in a process of its own; return its URL."""
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture
async def clients(moto: str) -> AsyncIterator[tuple[Any, Any]]:
    said = {"region_name": "us-east-1", "endpoint_url": moto}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    session = get_session()
    s3, topics = (session.create_client(name, **said, **keys) for name in ("s3", "sns"))
    async with s3 as one, topics as other:
        yield one, other


async def test_objects_of_a_bucket_that_tells_a_topic_arrive_once_each(
    gateway_process: StartProcess, clients: tuple[Any, Any], tmp_path: Path
) -> None:
    s3, topics = clients
    folder = write_plugin(tmp_path / "p", HANDLER.replace("FILE", str(tmp_path / "seen")))
    flags = ("--auth", "none", "--plugins", str(folder), "--object-buckets", "photos")
    with gateway_process(*flags) as gateway:
        await s3.create_bucket(Bucket="photos")
        topic = (await topics.create_topic(Name="uploads"))["TopicArn"]
        endpoint = f"{gateway.url}/-/notifications"
        await topics.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint)
        wanted = {"TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
        await s3.put_bucket_notification_configuration(
            Bucket="photos", NotificationConfiguration={"TopicConfigurations": [wanted]}
        )
        await s3.put_object(Bucket="photos", Key=KEY, Body=b"hello", Metadata={"uid": "7"})
        begun = await s3.create_multipart_upload(Bucket="photos", Key="large.bin")
        which = {"Bucket": "photos", "Key": "large.bin", "UploadId": begun["UploadId"]}
        part = await s3.upload_part(**which, PartNumber=1, Body=b"x" * PART)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        await s3.complete_multipart_upload(**which, MultipartUpload=parts)
        await s3.delete_object(Bucket="photos", Key="large.bin")
        deadline = time.monotonic() + SECONDS
        while len(seen(tmp_path)) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.05)  # the handler's file is the only sign
        await wait_settled(gateway)
        events = seen(tmp_path)
    assert sorted(event["key"] for event in events) == ["large.bin", KEY], json.dumps(events)
    assert {event["bucket"] for event in events} == {"photos"}
    assert {event["bytes"] for event in events} == {5, PART}
