"""What one client may use of what all share: fair shares of bounds, and the least rate of a transfer.

Counts are those of one process, but those of `FixedWindowCounters` and `InFlightTable`.
"""

from gateway.limits.clients import client_key, client_network
from gateway.limits.in_flight import InFlightLease, InFlightTable
from gateway.limits.rates import MinRate, TransferMeter
from gateway.limits.shares import RETRY_AFTER_SECONDS, FairShare, Lease, fits
from gateway.limits.turns import ClientTurns
from gateway.limits.windows import FixedWindowCounters

__all__ = [
    "RETRY_AFTER_SECONDS",
    "ClientTurns",
    "FairShare",
    "FixedWindowCounters",
    "InFlightLease",
    "InFlightTable",
    "Lease",
    "MinRate",
    "TransferMeter",
    "client_key",
    "client_network",
    "fits",
]
