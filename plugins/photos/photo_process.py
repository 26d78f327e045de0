"""Plugin photos: processes a stored photo: checks it, makes its copies, writes its record.

It may run twice and then changes nothing. The record is written last, so a photo with a record is
finished. Pictures are decoded in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from photo_images import COPY_TYPE, NotAPicture, make_copies
from photo_routes import READY, REJECTED, removed
from photo_rules import Photo, Rules, read_back

from gateway.errors import Refusal, Superseded


async def process(
    event: Mapping[str, Any], config: Mapping[str, Any], files: Any, photos: Any, logger: Any
) -> None:
    """Make the copies of a photo and write its record; what is not a picture is rejected and removed.

    An object that is not a photo of this service is left alone. Raises what storage or records
    raise: then the event is delivered again.
    """
    rules = Rules.of(config)
    if event["path"] is None:
        logger.info("%s is in another bucket: left alone", event["key"])
        return
    try:
        stat = await files.stat(event["path"])
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise
        logger.info("%s has been removed meanwhile", event["key"])
        return
    photo = read_back(event["metadata"] or stat.metadata, event["key"])
    if photo is None:
        logger.warning("%s has no metadata of a photo: left alone", event["key"])
        return
    record = await photos.get(photo.record_key)
    if record is not None and record["etag"] == stat.etag:
        if record["state"] == REJECTED:
            await removed(files, event["path"])
        return
    await _process_new(event, photo, stat, rules, (files, photos, logger))


async def _process_new(
    event: Mapping[str, Any], photo: Photo, stat: Any, rules: Rules, services: tuple[Any, Any, Any]
) -> None:
    files, photos, logger = services
    item = {
        "id": photo.photo_id,
        "eventId": photo.event_id,
        "title": photo.title,
        "description": photo.description,
        "contentType": photo.content_type,
        "owner": photo.owner,
        "ownerKind": photo.owner_kind,
        "created": stat.modified,
        "bytes": stat.bytes,
        "etag": stat.etag,
        "keys": {"original": photo.original},
    }
    try:
        content = await _read(event, stat, rules, files)
        copies = await asyncio.to_thread(make_copies, content, photo.content_type, rules.sizes)
    except Superseded:
        logger.info("%s has been replaced or removed meanwhile", event["key"])
        return
    except NotAPicture as reason:
        logger.warning("%s is rejected: %s", event["key"], reason)
        await photos.put(photo.record_key, {**item, "state": REJECTED, "reason": str(reason)})
        await removed(files, event["path"])
        return
    for key, made in ((photo.copy, copies.copy), (photo.thumb, copies.thumb)):
        await files.save(f"/{key}", made, mime=COPY_TYPE, on_conflict="replace")
    item["keys"] = {"original": photo.original, "copy": photo.copy, "thumb": photo.thumb}
    size = {"width": copies.width, "height": copies.height}
    await photos.put(photo.record_key, {**item, **size, "state": READY, "listed": stat.modified})


async def _read(event: Mapping[str, Any], stat: Any, rules: Rules, files: Any) -> bytes:
    if stat.bytes > rules.max_bytes:
        raise NotAPicture(f"it has more than {rules.max_bytes} bytes")
    async with files.open(event) as file:
        content: bytes = await file.read()
    return content


async def tidy(photos: Any, files: Any, *, days: int = 7) -> int:
    """Remove the records of photos that were rejected so many days ago; return how many."""
    long_ago, gone, cursor = time.time() - days * 86400, 0, None
    while True:
        page = await photos.query(index="state", equals=REJECTED, limit=100, cursor=cursor)
        for item in page.items:
            if item["created"] < long_ago:
                await removed(files, f"/{item['keys']['original']}")
                gone += await photos.delete(item["key"])
        cursor = page.cursor
        if cursor is None:
            return gone
