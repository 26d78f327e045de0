"""A user pool as Amazon Cognito has it, in a process of its own (moto): real tokens, keys over HTTP."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiobotocore.session import get_session

from tests.support.ports import free_port

SECONDS = 60.0
REGION = "eu-central-1"


@dataclass(frozen=True)
class Pool:
    """A user pool with one client and one user, ann, who is in the group `photographers`."""

    issuer: str
    jwks_url: str
    client_id: str
    id_token: str
    access_token: str

    @property
    def flags(self) -> dict[str, object]:
        """The settings of a gateway that takes both kinds of tokens of this pool."""
        return {
            "jwt_issuer": self.issuer,
            "jwt_jwks_url": self.jwks_url,
            "jwt_audience": [self.client_id],
            "jwt_client_ids": [self.client_id],
        }


@contextmanager
def moto_server(log: Path) -> Iterator[str]:
    """Run `moto_server` until the end of the block; gives its URL."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(f"{url}/moto-api/", process, log)
            yield url
        finally:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.05)  # there is no event of an opened port
    raise AssertionError(f"moto did not start:\n{log.read_text()}")


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A client of the service `cognito-idp`."""
    created = get_session().create_client(
        "cognito-idp",
        region_name=REGION,
        endpoint_url=url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    async with created as cognito:
        yield cognito


async def make_pool(url: str) -> Pool:
    """Make a pool with a client and a user, and sign the user in."""
    async with client(url) as cognito:
        pool = (await cognito.create_user_pool(PoolName="photos"))["UserPool"]["Id"]
        created = await cognito.create_user_pool_client(
            UserPoolId=pool,
            ClientName="page",
            ExplicitAuthFlows=["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"],
        )
        client_id = created["UserPoolClient"]["ClientId"]
        who: dict[str, Any] = {"UserPoolId": pool, "Username": "ann"}
        await cognito.admin_create_user(**who)
        await cognito.admin_set_user_password(**who, Password="Passw0rd!", Permanent=True)
        await cognito.create_group(UserPoolId=pool, GroupName="photographers")
        await cognito.admin_add_user_to_group(**who, GroupName="photographers")
        signed_in = await cognito.initiate_auth(
            ClientId=client_id,
            AuthFlow="USER_PASSWORD_AUTH",
            AuthParameters={"USERNAME": "ann", "PASSWORD": "Passw0rd!"},
        )
    tokens = signed_in["AuthenticationResult"]
    return Pool(
        issuer=f"https://cognito-idp.{REGION}.amazonaws.com/{pool}",
        jwks_url=f"{url}/{pool}/.well-known/jwks.json",
        client_id=client_id,
        id_token=tokens["IdToken"],
        access_token=tokens["AccessToken"],
    )
