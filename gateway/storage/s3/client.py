"""The S3 clients, one for each event loop: the server's own, and those of script executors.

All are created here, so that timeouts, retries, signatures and numbers of connections are the same.
Endpoint, region and credentials come from AWS_* in the environment, profiles or roles, as in S3 tools.
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
from gateway.storage.s3.errors import NO_CREDENTIALS, as_refusals, no_credentials

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
"""Seconds in which the storage must send or take some bytes in the middle of a request."""

MAX_ATTEMPTS: Final = 3
"""Tries of one request altogether, with growing delays (the SDKs' standard retry mode)."""

MAX_CONNECTIONS: Final = 64
"""Connections of one client; further requests wait for one."""

_SERVICES: Final = ("s3", "sts", "sso", "sso-oidc", "portal.sso", "signin")

Client = Any
"""An S3 client of aiobotocore, which has no types of its own."""


class Clients:
    """The S3 clients of a process, created on first use.

    Safe to call from several threads, each with its own loop. `mask_secrets` gets the credentials, to
    be masked in every output. With `attempts` 1 a request is tried once: what publishes has to know of
    every try. `endpoint` is another address than that of the environment.
    """

    def __init__(
        self,
        mask_secrets: Callable[[Iterable[str]], None] = lambda _: None,
        *,
        connections: int = MAX_CONNECTIONS,
        attempts: int = MAX_ATTEMPTS,
        endpoint: str | None = None,
    ) -> None:
        self._mask_secrets = mask_secrets
        self._endpoint = endpoint
        self._connections = connections
        self._attempts = attempts
        self._clients: dict[asyncio.AbstractEventLoop, asyncio.Task[Client]] = {}

    async def client(self) -> Client:
        """Return the client of the running loop. It lives until `close`: do not enter or close it.

        Raises `Refusal("storage_unavailable")` where there are no credentials.
        """
        loop = asyncio.get_running_loop()
        creating = self._clients.get(loop)
        if creating is None:
            creating = self._clients[loop] = loop.create_task(self._create())
        try:
            return await asyncio.shield(creating)
        except BaseException:
            if creating.done() and self._clients.get(loop) is creating:
                del self._clients[loop]
            raise

    async def close(self) -> None:
        """Close the client of the running loop, if there is one; the next call creates a new one."""
        creating = self._clients.pop(asyncio.get_running_loop(), None)
        if creating is None:
            return
        if not creating.done():
            creating.cancel()
        elif not creating.cancelled() and creating.exception() is None:
            await creating.result().__aexit__(None, None, None)

    def prepare(self) -> None:
        """Do what is slow about the first client, and check that there are credentials. Blocking.

        It reads megabytes of service descriptions in a third of a second: before the port opens, not
        on the loop. Raises `ConfigError` without credentials, or for an invalid endpoint.
        """
        # In a thread of its own: the caller may have a loop already.
        with ThreadPoolExecutor(1) as alone:
            alone.submit(asyncio.run, self._check_credentials()).result()

    async def _check_credentials(self) -> None:
        from botocore.exceptions import BotoCoreError

        try:
            client = await self._create()
        except Refusal as refusal:
            raise ConfigError(NO_CREDENTIALS) from refusal
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"the S3 storage cannot be used: {error}") from error
        await client.__aexit__(None, None, None)

    async def _create(self) -> Client:
        session = _session()
        with as_refusals("loading credentials"):
            credentials = await session.get_credentials()
            if credentials is None:
                raise no_credentials("opening the S3 storage")
            mask = _CredentialMask(credentials, self._mask_secrets)
            await mask()
        created = session.create_client(
            "s3",
            region_name=_region(session),
            endpoint_url=self._endpoint,
            config=_config(self._connections, self._attempts),
        )
        client = await created.__aenter__()
        client.meta.events.register("before-sign.s3", mask)
        return client


class _CredentialMask:
    """Masks credentials in the log, also when temporary ones change."""

    def __init__(self, credentials: Any, mask_secrets: Callable[[Iterable[str]], None]) -> None:
        self._credentials = credentials
        self._mask_secrets = mask_secrets
        self._masked: object = None

    async def __call__(self, **_: Any) -> None:
        frozen = await self._credentials.get_frozen_credentials()
        if frozen != self._masked:
            self._mask_secrets([secret for secret in (frozen.secret_key, frozen.token) if secret])
            self._masked = frozen


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
    # Their debug lines show signatures, and what was signed.
    for name in ("botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return session


@functools.cache
def _descriptions() -> Any:
    """Return the library's descriptions of the services, read once for all sessions.

    Only endpoints that serve objects or credentials stay: those of other services are 7 MiB a process.
    """
    from botocore.loaders import create_loader

    loader = create_loader()
    for partition in loader.load_data("endpoints")["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in _SERVICES if name in services}
    return loader


def _region(session: Any) -> str:
    """Other SDKs read AWS_REGION; most self-hosted stores take any region."""
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
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        tcp_keepalive=True,
    )
