"""Records room: small JSON items that scripts keep, by key and by the fields they are asked for.

One rule: what a put returned from is on stable storage, and every store gives the same answers. Knows
nothing of files, events or doors. May import `settings`, `redaction` and `errors`.
"""

from gateway.records.collection import Collection, Records
from gateway.records.opening import FILE, open_records, secrets_of
from gateway.records.query import Page
from gateway.records.store import Memory, Nowhere, Store

__all__ = [
    "FILE",
    "Collection",
    "Memory",
    "Nowhere",
    "Page",
    "Records",
    "Store",
    "open_records",
    "secrets_of",
]
