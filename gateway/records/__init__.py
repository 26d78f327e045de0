"""Small JSON items that scripts keep, by key and by the fields they are asked for.

One rule: what a put returned from is on stable storage, and every store gives the same answers.
Knows nothing of files, events or doors.
"""

from gateway.records.collection import Collection, Records
from gateway.records.opening import FILE, open_records, secrets_of
from gateway.records.query import ItemPage
from gateway.records.store import MemoryStore, RecordStore, UnavailableStore

__all__ = [
    "FILE",
    "Collection",
    "ItemPage",
    "MemoryStore",
    "RecordStore",
    "Records",
    "UnavailableStore",
    "open_records",
    "secrets_of",
]
