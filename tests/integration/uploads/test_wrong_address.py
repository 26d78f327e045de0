"""Who uses a wrong address is told the right one."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import StartGateway
from tests.support.harness import get, put, raw_connection, request_head, write_plugin

ROOT = """
name: root
upstreams: []
proxy: {path: /, scheme: "http:", authorization: {auth: none}}
target: {path: /, scheme: "http:"}
request_script: |
  return {"mine": True}
"""


async def test_the_root_says_where_uploads_go(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token")
    answer = await get(gateway, "/")
    assert answer.status == 200
    assert answer.json == {"message": "uploads go to PUT /upload/<name>", "docs": "/-/docs"}
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", "/"))
        assert (await connection.answer(head=True)).status == 200
    for method in ("POST", "DELETE"):
        async with raw_connection(gateway) as connection:
            await connection.send(request_head(method, "/"))
            assert (await connection.answer()).status == 404


async def test_a_file_that_is_put_elsewhere_is_told_the_path_of_this_gateway(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(file_upload_api_path="/files/{team}/{filepath}")
    for path in ("/", "/upload/a.txt"):
        answer = await put(gateway, path, b"1")
        assert (answer.status, answer.json["error"]) == (404, "not_found")
        assert answer.json["message"].startswith("uploads go to PUT /files/<team>/<name>")
    assert (await get(gateway, "/elsewhere")).json["message"] == "nothing is served under this path"


async def test_a_route_at_the_root_is_served(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "p", ROOT))])
    assert (await get(gateway, "/")).json == {"mine": True}


async def test_a_folder_is_answered_with_its_archive(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(downloads="true")
    assert (await put(gateway, "/upload/docs/a.txt", b"1")).status == 201
    for path in ("/upload/docs/", "/upload/"):
        answer = await get(gateway, path)
        assert (answer.status, answer.json["error"]) == (404, "not_found")
        assert answer.json["message"] == f"folders are not listed; ask {path}?format=zip for all of it"
        assert (await get(gateway, f"{path}?format=zip")).status == 200


async def test_a_folder_without_the_name_of_a_file_is_told_so(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    answer = await put(gateway, "/upload/docs/", b"1")
    assert (answer.status, answer.json["error"]) == (400, "bad_path")
    assert answer.json["message"].endswith("it ends with a slash, and needs the name of a file")


async def test_a_client_of_webdav_is_told_which_methods_there_are(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    for method, path in (("PROPFIND", "/upload/"), ("MKCOL", "/upload/new/"), ("LOCK", "/upload/a.txt")):
        async with raw_connection(gateway) as connection:
            await connection.send(request_head(method, path))
            answer = await connection.answer()
            assert (answer.status, answer.headers["Allow"]) == (405, "PUT, POST")
