"""Which quotas an upload or a stored file counts for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.domain.model import Upload
from gateway.domain.quotas import ADDRESS, PRINCIPAL, BoundQuota, Quota, QuotaLimits
from gateway.limits.clients import SHARED_KINDS, client_network

_OF_SCRIPTS: Final = "script"
"""The kind of principal of what scripts save: no client, so it counts for prefixes only."""

Owner = dict[str, str]
"""Who an upload counts for: the value of each `per` that is known of it."""


class QuotaRules:
    """The `quotas` of the settings, as they apply to uploads."""

    def __init__(self, quotas: Sequence[Quota] = ()) -> None:
        self.quotas = tuple(quotas)
        self.counted = tuple(quota for quota in quotas if quota.limits.as_dict())
        """Those that a store counts: all but those of requests alone."""

    @property
    def prefixes(self) -> list[str]:
        """The prefixes under which whatever is stored counts, whoever stored it."""
        stored = (quota for quota in self.counted if quota.limits.counts_stored and quota.per is None)
        return sorted({quota.prefix for quota in stored if quota.prefix is not None})

    @property
    def fingerprint(self) -> str:
        """What is counted, not how much of it is allowed: files count anew where this changes."""
        scopes = (f"{quota.scope} {quota.limits.counts_stored}" for quota in self.counted)
        return "\n".join(sorted(scopes))

    def of_upload(self, upload: Upload) -> list[BoundQuota]:
        """Return the quotas of an upload, those that came with it included."""
        owner = owner_of(upload.principal, upload.remote, upload.resources)
        own = [BoundQuota(key, QuotaLimits.of(limits)) for key, limits in upload.quotas.items()]
        return [*self.of_file(owner, upload.path), *own]

    def limits_of(self, key: str) -> QuotaLimits:
        """Return the limits that the settings give to a key, by the longest scope it begins with."""
        scopes = [quota for quota in self.quotas if quota.has_key(key)]
        return max(scopes, key=lambda quota: len(quota.scope)).limits if scopes else QuotaLimits()

    def of_file(self, owner: Mapping[str, str], path: str) -> list[BoundQuota]:
        """Return the quotas of a file of an owner."""
        bound = (quota.bound(owner, path) for quota in self.counted)
        return [quota for quota in bound if quota is not None]


def owner_of(
    principal: Mapping[str, Any] | None, remote: str | None, resources: Mapping[str, str]
) -> Owner:
    """Return who an upload counts for.

    The principal of a client without a name, and of a signed URL, which many may have, is its address.
    """
    if principal is not None and principal["kind"] == _OF_SCRIPTS:
        return {}
    address = client_network(remote or "")
    if principal is None or principal["kind"] in SHARED_KINDS:
        name = f"{address} (address)"
    else:
        name = f"{principal['name']} ({principal['kind']})"
    variables = {name: value for name, value in resources.items() if name not in _FILE_NAMES}
    return {**variables, PRINCIPAL: name, ADDRESS: address}


_FILE_NAMES: Final = frozenset({"filepath", "filename"})
"""Variables that name one file, no owner."""
