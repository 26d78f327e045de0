"""The statements with which the journal's queue settles, returns and revives deliveries.

Rows come as one JSON text, `:rows`, see `database.packed`.
"""

from __future__ import annotations

from typing import Final

IS_CLAIMED: Final = (
    "d.seq = json_extract(value, '$[0]') AND d.round = json_extract(value, '$[1]')"
    " AND d.attempt = json_extract(value, '$[2]') AND +d.state = 'running'"
)
"""Whether a delivery is still in the run that settles it. The `+` keeps SQLite from going through all
running deliveries, by the index of states, for each of them."""

SETTLE: Final = (
    "UPDATE deliveries AS d SET state = json_extract(value, '$[3]'), updated = :now,"  # noqa: S608 (ours)
    " due = iif(json_extract(value, '$[4]') > 0, :now + json_extract(value, '$[4]'), 0),"
    " error = json_extract(value, '$[5]'), result = json_extract(value, '$[8]')"
    f" FROM json_each(:rows) WHERE {IS_CLAIMED}"
)
RUN_ENDED: Final = (
    "INSERT OR IGNORE INTO runs SELECT d.seq, :now, d.attempt, :node,"  # noqa: S608
    " json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[5]')"
    f" FROM json_each(:rows) CROSS JOIN deliveries d WHERE {IS_CLAIMED}"
)
REQUEUE: Final = (
    "UPDATE deliveries AS d SET state = 'ready', attempt = attempt - 1, updated = :now,"  # noqa: S608
    " due = CASE WHEN :delay > 0 THEN :now + :delay ELSE 0 END"
    f" FROM json_each(:rows) WHERE {IS_CLAIMED}"
)
COUNT_DUE: Final = (
    "SELECT count(*) FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready' AND due <= ?"
)
COUNT_RUNNING: Final = (
    "SELECT count(*) FROM deliveries INDEXED BY deliveries_unfinished WHERE state = 'running'"
)
REVIVE: Final = (
    "UPDATE deliveries SET state = 'ready', due = 0,"
    " error = 'the gateway stopped while the handler ran' WHERE state = 'running'"
)
LIMIT_DELAYS: Final = (
    "UPDATE deliveries SET due = :now WHERE seq IN"
    " (SELECT seq FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready'"
    " AND handler = :handler AND due > :latest ORDER BY due DESC LIMIT :limit)"
)
_DEAD_LETTER: Final = (
    "UPDATE deliveries SET state = 'dead', updated = ?, error = 'no plugin has a handler of this name'"
    " WHERE seq IN (SELECT seq FROM deliveries INDEXED BY deliveries_ready WHERE state = 'ready'"
    " AND handler = ? AND {kind} AND event_id NOT IN (SELECT value FROM json_each(?)) LIMIT ?)"
)
OF_HELD: Final = "event_id LIKE '%.received'"
"""Whether a delivery is of an event of a held upload, see `event_bodies.received_id`."""

NOT_OF_HELD: Final = "event_id NOT LIKE '%.received'"
DEAD_LETTER_ORPHANS: Final = _DEAD_LETTER.format(kind=NOT_OF_HELD)
DEAD_LETTER_HELD: Final = _DEAD_LETTER.format(kind=OF_HELD)
RELAYED: Final = (
    "UPDATE deliveries AS d SET state = 'relayed', attempt = 0, updated = :now"  # noqa: S608
    f" FROM json_each(:rows) WHERE {IS_CLAIMED}"
)
