"""The handler of docs/how-to/records.md that keeps its items in DynamoDB, against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiobotocore.session import get_session

from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.doc_pages import blocks, file_name
from tests.support.harness import handlers_done, put, write_plugin
from tests.support.jwt.cognito import moto_server

PAGE = PROJECT / "docs/how-to/records.md"
ACCOUNT = {
    "region_name": "eu-central-1",
    "aws_access_key_id": "AKIDTEST12",
    "aws_secret_access_key": "SECRETTEST1234",
}


@pytest.mark.slow
async def test_the_handler_of_the_page_keeps_uploads_in_a_table(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    with moto_server(tmp_path / "moto.log") as url:
        client = {**ACCOUNT, "endpoint_url": url}
        for block in blocks(PAGE):
            if block.language == "yaml" and file_name(block).startswith("dynamodb/"):
                text = block.text.replace("region_name: eu-central-1", f"<<: {client}")
                write_plugin(tmp_path / "p", text, Path(file_name(block)).name)
        async with get_session().create_client("dynamodb", **client) as table:
            key = {"AttributeName": "upload_id"}
            await table.create_table(
                TableName="catalogue",
                KeySchema=[{**key, "KeyType": "HASH"}],
                AttributeDefinitions=[{**key, "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            running = await start_gateway(auth="none", plugins=[str(tmp_path / "p")])
            upload_id = (await put(running, "/upload/a.bin", b"1234")).json["upload_id"]
            await handlers_done(running, upload_id)
            found = await table.get_item(TableName="catalogue", Key={"upload_id": {"S": upload_id}})
    assert found["Item"]["path"] == {"S": "/upload/a.bin"}
    assert found["Item"]["bytes"] == {"N": "4"}
