"""Small JSON items that scripts keep, found by key or by an indexed field.

When `put` returns, the item is on stable storage. Every store answers a query with the same rows in the
same order.
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
