"""Tokens as Amazon Cognito makes them: ID and access tokens of a user pool, keys over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.integration.jwt.test_gateway import RIGHTS, WHO, bearer
from tests.support.harness import get, put
from tests.support.jwt.cognito import Pool, make_pool, moto_server
from tests.support.routing.scripted import route, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with moto_server(tmp_path_factory.mktemp("moto") / "log") as url:
        yield asyncio.run(make_pool(url))


async def test_both_tokens_of_a_user_are_believed(
    start_gateway: StartGateway, pool: Pool, tmp_path: Path
) -> None:
    folder = write(
        tmp_path / "plugins",
        route("/who", WHO, auth="default"),
        RIGHTS.format(path="/group", mode="default", rights="groups: [photographers]"),
        RIGHTS.format(path="/scope", mode="jwt", rights="scopes: [aws.cognito.signin.user.admin]"),
        RIGHTS.format(path="/other", mode="jwt", rights="groups: [editors]"),
    )
    gateway = await start_gateway(auth="jwt", plugins=[str(folder)], **pool.flags)
    for token in (pool.id_token, pool.access_token):
        assert (await put(gateway, "/upload/a", b"x", bearer(token))).status in {200, 201}
        assert (await get(gateway, "/group", bearer(token))).status == 200
        assert (await get(gateway, "/other", bearer(token))).status == 403
    who = (await get(gateway, "/who", bearer(pool.id_token))).json
    assert who["claims"]["cognito:username"] == "ann"
    assert (who["name"], who["groups"]) == (who["claims"]["sub"], ["photographers"])
    access = (await get(gateway, "/who", bearer(pool.access_token))).json
    assert (access["name"], access["claims"]["client_id"]) == (who["name"], pool.client_id)
    assert (await get(gateway, "/scope", bearer(pool.access_token))).status == 200
    assert (await get(gateway, "/scope", bearer(pool.id_token))).status == 403


@pytest.mark.parametrize("use", ["id", "access"])
async def test_only_the_kind_of_token_that_was_asked_for_is_believed(
    start_gateway: StartGateway, pool: Pool, use: str
) -> None:
    gateway = await start_gateway(auth="jwt", jwt_token_use=use, **pool.flags)
    wanted = {"id": pool.id_token, "access": pool.access_token}
    for kind, token in wanted.items():
        answer = await put(gateway, "/upload/a", b"x", bearer(token))
        assert answer.status == (201 if kind == use else 401)


async def test_tokens_of_another_client_of_the_pool_are_not_believed(
    start_gateway: StartGateway, pool: Pool
) -> None:
    flags = {**pool.flags, "jwt_audience": ["another"], "jwt_client_ids": ["another"]}
    gateway = await start_gateway(auth="jwt", **flags)
    for token in (pool.id_token, pool.access_token):
        assert (await put(gateway, "/upload/a", b"x", bearer(token))).status == 401


async def test_a_pool_of_which_only_the_access_tokens_are_meant_needs_no_audience(
    start_gateway: StartGateway, pool: Pool
) -> None:
    flags = {name: value for name, value in pool.flags.items() if name != "jwt_audience"}
    gateway = await start_gateway(auth="jwt", **flags)
    assert (await put(gateway, "/upload/a", b"x", bearer(pool.access_token))).status == 201
    assert (await put(gateway, "/upload/a", b"x", bearer(pool.id_token))).status == 401
