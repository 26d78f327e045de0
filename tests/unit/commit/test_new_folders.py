"""The folders that uploads need: whose are made next."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from gateway.commit.new_folders import THREADS
from tests.support.committer import TIMEOUT, CommitterHarness


async def test_clients_take_turns_in_making_folders(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, all_busy, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    mkdir, made = os.mkdir, list[str]()

    def held(name: str, *arguments: Any, **named: Any) -> None:
        made.append(name)
        if len(made) == THREADS:
            loop.call_soon_threadsafe(all_busy.set)
        assert goes_on.wait(TIMEOUT)
        mkdir(name, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", held)
    commits = [
        asyncio.create_task(harness.commit(f"/greedy{n}/x", remote="192.0.2.1")) for n in range(20)
    ]
    await all_busy.wait()
    commits += [
        asyncio.create_task(harness.commit(f"/{client}/x", remote=client))
        for client in ("192.0.2.2", "192.0.2.3")
    ]
    await asyncio.sleep(0)  # each has queued its request when this returns
    goes_on.set()
    await asyncio.gather(*commits)
    # After those in work, at most one of the greedy client goes before each other one.
    assert {made.index("192.0.2.2"), made.index("192.0.2.3")} <= set(range(THREADS, THREADS + 4))
    assert len(harness.stored()) == 22


async def test_a_folder_that_cannot_be_made_fails_its_upload_alone(harness: CommitterHarness) -> None:
    (harness.root / "file").write_bytes(b"")
    outcomes = await asyncio.gather(
        *(harness.commit(path) for path in ("/file/x", "/new/x")), return_exceptions=True
    )
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [True, False]
    assert set(harness.stored()) == {"file", "new/x"}
    assert harness.bodies() == []
