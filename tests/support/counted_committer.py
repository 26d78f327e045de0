"""A committer whose uploads count for quotas, with everything around it that settles and scans."""

from __future__ import annotations

from gateway.commit.quotas.files import QuotaFiles, QuotaPlace
from gateway.commit.quotas.partials import QuotaPartialStore
from gateway.commit.quotas.quotas import Quotas
from gateway.commit.quotas.recovery import QuotaRecovery
from gateway.commit.quotas.scan import QuotaScan
from gateway.commit.quotas.writer import QuotaWriter
from gateway.domain.model import Stored, Upload, new_id
from gateway.domain.partial import PartialHead
from gateway.domain.quotas import Quota, QuotaLimits
from gateway.limits.quota_rules import QuotaRules
from gateway.storage.local.storage import LocalStorage
from tests.support.committer import CommitterHarness
from tests.support.quotas import CountersInMemory

ALICE = {"name": "alice", "kind": "token"}
KEY = "per principal alice (token)"
BOTH = [
    Quota(QuotaLimits(bytes=1000, bytes_per_day=5000), per="principal"),
    Quota(QuotaLimits(files=3), prefix="/few/"),
]


class Counted:
    """A committer whose uploads count. `counters` outlive a restart."""

    def __init__(self, harness: CommitterHarness) -> None:
        self.harness = harness
        self.counters = CountersInMemory()
        self.storage = LocalStorage(harness.tree, harness.committer.between_batches)
        self.restart(BOTH)

    def restart(self, quotas: list[Quota], slot: int = 0) -> None:
        """Begin anew, with nothing in memory."""
        place = QuotaPlace("", "", slot)
        files = QuotaFiles(QuotaRules(quotas), self.counters, place, self.storage)
        self.quotas = Quotas(files)
        self.writer = QuotaWriter(self.harness.writer(), self.quotas)
        self.partials = self.harness.partial_store()
        self.store = QuotaPartialStore(self.partials, self.quotas, self.writer)
        self.recovery = QuotaRecovery(self.quotas, self.harness.journal, self.partials)
        self.scan = QuotaScan(files, self.storage, self.harness.journal.uploads, lambda _: {})

    def upload(self, path: str, length: int | None = None) -> Upload:
        return Upload(new_id(0), path, principal=dict(ALICE), remote="192.0.2.1", content_length=length)

    async def put(self, path: str, content: bytes) -> Stored:
        return await self.writer.store(self.upload(path, len(content)), content, from_client=True)

    def usage(self) -> dict[str, tuple[int, int]]:
        assert self.counters.usage() == self.counters.expected_usage()
        return self.counters.usage()

    def reserved(self) -> int:
        (count,) = self.counters.db.execute("SELECT count(*) FROM quota_reservations").fetchone()
        return int(count)


def head(upload: Upload, *, part_of_concat: bool = False) -> PartialHead:
    return PartialHead(upload, upload.path, "tus", "client", part_of_concat=part_of_concat)
