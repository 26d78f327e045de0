"""The memory bench: requests are sent, and memory is told."""

from __future__ import annotations

import pytest

from bench import memory
from bench.aborted import aborted_answers, aborted_bodies


async def test_the_memory_bench_sends_requests_and_tells_the_memory(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SECONDS_TO_RETURN", 0.1)
    kinds = {request.name for request in (*aborted_bodies(), *aborted_answers())}
    measured = await memory.measure(0.01, clients=2)
    assert measured.counts.keys() <= {"served to the end", *kinds}
    assert measured.counts["served to the end"] >= 2
    assert 0 < measured.start <= measured.peak
    assert measured.end > 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("start:", "last:", "end:"))
