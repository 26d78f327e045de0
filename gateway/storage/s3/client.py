"""S3 room: the client, one an event loop: the server's own, and those of script lanes.

One rule: nobody else makes a client, so that time-outs, retries, signatures and the number of
connections are the same everywhere. Endpoint, region and credentials come from where every S3 tool
finds them (AWS_* in the environment, profiles, roles).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gateway.errors import ConfigError, Refusal
from gateway.storage.s3.errors import NO_CREDENTIALS, no_credentials, translated

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""How long the storage may send nothing, or take nothing, in the middle of a request."""

ATTEMPTS: Final = 3
"""Tries of one request altogether, with pauses that grow (the SDKs' standard retry mode)."""

CONNECTIONS: Final = 64
"""Connections of one client; further requests wait for one."""

_ASKED: Final = ("s3", "sts", "sso", "sso-oidc", "portal.sso", "signin")

Client = Any
"""An S3 client of aiobotocore, which has no types of its own."""


def _nobody(_secrets: Iterable[str]) -> None:
    """Keep no secret."""


class Clients:
    """The S3 clients of a process, made when they are asked for.

    Safe to call from several threads, each with its own loop. `learn` gets the credentials, to
    be masked in whatever is written. With `attempts` 1 a request is tried once: what publishes has to
    know of every try. `endpoint` is another address than that of the environment.
    """

    def __init__(
        self,
        learn: Callable[[Iterable[str]], None] = _nobody,
        *,
        connections: int = CONNECTIONS,
        attempts: int = ATTEMPTS,
        endpoint: str | None = None,
    ) -> None:
        self._learn = learn
        self._endpoint = endpoint
        self._connections = connections
        self._attempts = attempts
        self._made: dict[asyncio.AbstractEventLoop, asyncio.Task[Client]] = {}

    def __repr__(self) -> str:
        return f"<Clients of {len(self._made)} loops>"

    async def client(self) -> Client:
        """Return the client of the running loop. It lives until `close`: do not enter or close it.

        Raises `Refusal("storage_unavailable")` where there are no credentials.
        """
        loop = asyncio.get_running_loop()
        making = self._made.get(loop)
        if making is None:
            making = self._made[loop] = loop.create_task(self._make())
        try:
            return await asyncio.shield(making)
        except BaseException:
            if making.done() and self._made.get(loop) is making:
                del self._made[loop]
            raise

    async def close(self) -> None:
        """Close the client of the running loop, if there is one; the next call makes a new one."""
        making = self._made.pop(asyncio.get_running_loop(), None)
        if making is None:
            return
        if not making.done():
            making.cancel()
        elif not making.cancelled() and making.exception() is None:
            await making.result().__aexit__(None, None, None)

    def prepare(self) -> None:
        """Do what is slow about the first client, and see that there are credentials. Blocking.

        It reads megabytes of descriptions, a third of a second: before the port opens, not on the
        loop. Raises `ConfigError` where there are no credentials, or the endpoint makes no sense.
        """
        # In a thread of its own: the caller may have a loop already.
        with ThreadPoolExecutor(1) as alone:
            alone.submit(asyncio.run, self._try_out()).result()

    async def _try_out(self) -> None:
        from botocore.exceptions import BotoCoreError

        try:
            client = await self._make()
        except Refusal as refusal:
            raise ConfigError(NO_CREDENTIALS) from refusal
        except (BotoCoreError, ValueError) as fault:
            raise ConfigError(f"the S3 storage cannot be used: {fault}") from fault
        await client.__aexit__(None, None, None)

    async def _make(self) -> Client:

        session = _session()
        with translated("looking for credentials"):
            credentials = await session.get_credentials()
            if credentials is None:
                raise no_credentials("opening the S3 storage")
            hide = _Hiding(credentials, self._learn)
            await hide()
        making = session.create_client(
            "s3",
            region_name=_region(session),
            endpoint_url=self._endpoint,
            config=_config(self._connections, self._attempts),
        )
        client = await making.__aenter__()
        client.meta.events.register("before-sign.s3", hide)
        return client


class _Hiding:
    """Keeps the mask up to date: temporary credentials change."""

    def __init__(self, credentials: Any, learn: Callable[[Iterable[str]], None]) -> None:
        self._credentials = credentials
        self._learn = learn
        self._known: object = None

    async def __call__(self, **_: Any) -> None:
        frozen = await self._credentials.get_frozen_credentials()
        if frozen != self._known:
            self._learn([one for one in (frozen.secret_key, frozen.token) if one])
            self._known = frozen


async def expires_in(client: Client) -> float | None:
    """Return for how many seconds the client's credentials are good; None for those that last.

    A signed URL ends with the credentials that signed it (Amazon S3 user guide, "Download and
    upload objects with presigned URLs"), whatever it says itself.
    """
    credentials = client._request_signer._credentials
    await credentials.get_frozen_credentials()  # which renews those that are about to end
    end = getattr(credentials, "_expiry_time", None)
    return None if end is None else max(0.0, end.timestamp() - time.time())


def _session() -> Any:
    from aiobotocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _descriptions())
    # Their debug lines tell signatures, and what was signed.
    for name in ("botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return session


@functools.cache
def _descriptions() -> Any:
    """What the library knows of the services, read once for all sessions.

    Of the endpoints of hundreds of services only those stay that are asked for an object or for
    credentials: the others are 7 MiB in each process.
    """
    from botocore.loaders import create_loader

    loader = create_loader()
    for partition in loader.load_data("endpoints")["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in _ASKED if name in services}
    return loader


def _region(session: Any) -> str:
    """AWS_REGION is what other SDKs read; stores of one's own mostly do not care."""
    named = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(named or "us-east-1")


def _config(connections: int, attempts: int) -> Any:
    """Return the settings of every client.

    Signing payloads and adding checksums would hash on the loop, half a second for 300 MB; over
    TLS neither adds anything, and digests that clients ask for are verified before publishing.
    """
    from aiobotocore.config import AioConfig

    return AioConfig(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # `auto` is path style wherever an endpoint was named.
        s3={"payload_signing_enabled": False, "addressing_style": "auto"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=SILENCE_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        tcp_keepalive=True,
    )
