"""Plugin s3-forward: the Config plugin `s3`, checked, and a client for it.

An invalid value is named by its key and never shown.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from s3source import MAX_PART_BYTES, MIB, MIN_PART_BYTES

_SESSION: Final = get_session()


@dataclass(frozen=True, slots=True)
class Target:
    """A bucket and how to reach it; each field is a key of the config.

    Sizes in bytes. Without `endpoint_url` it is AWS, or what AWS_ENDPOINT_URL_S3 says. Without
    keys the usual places are searched (environment, instance role). `location` is the
    LocationConstraint of a bucket that has to be made; None means the region.
    """

    bucket: str
    region: str = "us-east-1"
    prefix: str = ""
    endpoint_url: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    part_size: int = 8 * MIB
    parts_in_flight: int = 3
    location: str | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a config. Raises `ValueError` that names the key that is wrong."""
        names = [spec.name for spec in fields(cls)]
        for key in config:
            if key not in names:
                raise ValueError(f"config s3: there is no key {key}; the keys are {', '.join(names)}")
        if not config.get("bucket"):
            raise ValueError("config s3: bucket is missing")
        numbers = {
            "part_size": _number(config, "part_size", 8 * MIB, MIN_PART_BYTES, MAX_PART_BYTES),
            "parts_in_flight": _number(config, "parts_in_flight", 3, 1, 64),
        }
        return cls(**{**config, **numbers})

    def key(self, path: str) -> str:
        """Return the object's key for the path of an upload."""
        prefix = self.prefix.strip("/")
        return f"{prefix}/{path.lstrip('/')}".lstrip("/")

    @property
    def location_constraint(self) -> dict[str, Any]:
        """What `create_bucket` needs; us-east-1 must be left out (Amazon S3 API, CreateBucket)."""
        location = self.region if self.location is None else self.location
        if location in {"", "us-east-1"}:
            return {}
        return {"CreateBucketConfiguration": {"LocationConstraint": location}}

    def client(self) -> AbstractAsyncContextManager[Any]:
        """Return an S3 client, to be entered.

        Signing the payload and computing the default checksums would hash on the event loop, half a
        second for 300 MB: the digests that we send are our own, computed in threads.
        """
        config = AioConfig(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": False,
                "addressing_style": "path" if self.endpoint_url else "auto",
            },
            connect_timeout=10,
            read_timeout=120,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=self.parts_in_flight + 2,
        )
        client: AbstractAsyncContextManager[Any] = _SESSION.create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            aws_session_token=self.session_token,
            config=config,
        )
        return client


def _number(config: Mapping[str, Any], key: str, default: int, least: int, most: int) -> int:
    try:
        number = int(config.get(key, default))
    except (TypeError, ValueError):
        number = -1
    if not least <= number <= most:
        raise ValueError(f"config s3: {key} must be a whole number from {least} to {most}")
    return number


def _warm_up() -> None:
    # With keys, else they are searched on the network.
    dummy_keys: dict[str, Any] = {"access_key_id": "none", "secret_access_key": "none"}

    async def make_client() -> None:
        async with Target("none", endpoint_url="http://127.0.0.1:1", **dummy_keys).client():
            pass

    asyncio.run(make_client())


# The session's first client reads megabytes of JSON, a quarter of a second: at load, not in an executor.
# In a thread, because the thread that loads plugins may have a running loop.
_warming = threading.Thread(target=_warm_up)
_warming.start()
_warming.join()
