"""Plugin exports: removes what has expired, and orders again what nothing works on any more.

A file is removed when it is older than the config allows, whatever the records say.
"""

from __future__ import annotations

import time
from typing import Any, Final

from export_asking import BUILDING, WAITING, Rules, revive

PAGE: Final = 200


async def sweep(rules: Rules, kept: Any, files: Any, logger: Any) -> None:
    """Remove what has expired, order stalled exports again, and log both."""
    for folder, seconds in rules.folders.items():
        removed = await files.expire(folder, seconds)
        logger.info("%d files removed from %s, older than %g s", removed, folder, seconds)
    forgotten = await _forget(time.time() - rules.kept_for, kept)
    revived = await _revive(rules, kept, files)
    logger.info("exports: %d records forgotten, %d ordered again", forgotten, revived)


async def _forget(before: float, kept: Any) -> int:
    count = 0
    while items := (await kept.query(index="beat", until=before, limit=PAGE)).items:
        for item in items:
            await kept.delete(item["key"])
            count += 1
    return count


async def _revive(rules: Rules, kept: Any, files: Any) -> int:
    count = 0
    for state in (WAITING, BUILDING):
        cursor = None
        while True:
            page = await kept.query(index="state", equals=state, limit=PAGE, cursor=cursor)
            for item in page.items:
                count += (await revive(item, rules, kept, files))["run"] != item["run"]
            cursor = page.cursor
            if cursor is None:
                break
    return count
