"""What an API key or a link makes of an upload: what it counts for, and where it may go."""

from __future__ import annotations

from gateway.auth.links.scope import check_link_path
from gateway.auth.request import Caller
from gateway.domain.held import limit_to_credential
from gateway.domain.links import link_quota
from gateway.domain.model import Upload
from gateway.domain.quotas import QuotaLimits


def apply_credential(caller: Caller, upload: Upload) -> None:
    """Let an upload count for the key or the link of its sender, within their limits.

    The rate of a key is counted with the request. Raises `Refusal` where a link is for another folder.
    """
    key, link = caller.key, caller.link
    if key is not None and key.bytes_per_day is not None:
        upload.quotas[f"key {key.name}"] = QuotaLimits(bytes_per_day=key.bytes_per_day).as_dict()
    if link is not None:
        check_link_path(link, upload.path)
        upload.quotas[link_quota(link.id)] = QuotaLimits(link.max_bytes, link.max_files).as_dict()
    limit_to_credential(upload)
