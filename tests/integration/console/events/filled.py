"""Journals with deliveries in every state, written at once, and visits of the pages of events."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import AbstractAsyncContextManager
from typing import Final

from gateway.domain.model import UPLOADED
from gateway.server.app import Gateway
from tests.support.browser import BrowserVisit, visiting_as
from tests.support.records import claim_deliveries, publish_uploads, result_of, settle_run

TRACEBACK: Final = (
    'Traceback (most recent call last):\n  File "/plugins/thumbnails.yaml", line 12, in thumbnail\n'
    "    image = Image.open(file)\n"
)
MARKUP: Final = "<img src=x onerror=alert(1)>\u202e"


def visiting(**how: object) -> AbstractAsyncContextManager[BrowserVisit]:
    """Open an empty page in which axe can run."""
    size = {"width": 1280, "height": 860}
    return visiting_as(BrowserVisit, **{"viewport": size, "bypass_csp": True, **how})


async def show_instead(visit: BrowserVisit, texts: dict[str, str]) -> None:
    """Replace texts of the page that no picture should have."""
    await visit.page.evaluate(
        """texts => {
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) {
                for (const [before, after] of Object.entries(texts)) {
                    walker.currentNode.data = walker.currentNode.data.replaceAll(before, after);
                }
            }
        }""",
        texts,
    )


def fill_dead(gateway: Gateway, handler: str, error: str, count: int, at: int = 0) -> None:
    """Write dead deliveries: `{0}` in the error is the number of each."""

    def operation(db: sqlite3.Connection) -> None:
        now = time.time()
        names = [f"{handler}-{at + number}" for number in range(count)]
        db.executemany(
            "INSERT INTO events (id, type, upload_id, path, created, body) VALUES (?, ?, NULL, ?, ?, ?)",
            [
                (f"e-{name}", UPLOADED, f"/upload/{name}.png", now - count + number, json.dumps({}))
                for number, name in enumerate(names)
            ],
        )
        db.executemany(
            "INSERT INTO deliveries (event_id, handler, state, attempt, due, created, updated, error)"
            " VALUES (?, ?, 'dead', 8, 0, ?, ?, ?)",
            [
                (f"e-{name}", handler, now - count + number, now, f"{error.format(number)}\n{TRACEBACK}")
                for number, name in enumerate(names)
            ],
        )

    result_of(gateway.resources.journal._database.submit(operation))


def fill_every_state(gateway: Gateway) -> None:
    """Leave a delivery of `h` in each state: done, dead, delayed, running and ready."""
    journal = gateway.resources.journal
    for name, outcome in (("done", "done"), ("dead", "dead"), ("delayed", "retry")):
        publish_uploads(journal, name)
        error = f"ValueError: {MARKUP} of {name}\n{TRACEBACK}ValueError: {MARKUP}"
        settle_run(journal, claim_deliveries(journal)[0], outcome, error, 900)
    publish_uploads(journal, "running")
    claim_deliveries(journal)
    publish_uploads(journal, "ready")


def dead_by_handler(gateway: Gateway) -> dict[str, int]:
    """Count the dead in the journal itself."""

    def operation(db: sqlite3.Connection) -> dict[str, int]:
        query = "SELECT handler, count(*) FROM deliveries WHERE state = 'dead' GROUP BY handler"
        return dict(db.execute(query).fetchall())

    return result_of(gateway.resources.journal._database.submit(operation))
