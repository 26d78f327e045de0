"""The memory bench: all kinds of requests are sent, and memory is told."""

from __future__ import annotations

import pytest

from bench import memory
from bench.aborted import aborted_answers, aborted_bodies


async def test_the_memory_bench_sends_every_kind_of_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SECONDS_TO_RETURN", 0.1)
    kinds = [*aborted_bodies(), *aborted_answers()]
    measured = await memory.measure(0.01, clients=len(kinds))
    assert set(measured.counts) >= {"served to the end"}
    assert 0 < measured.start <= measured.peak
    assert measured.end > 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("start:", "last:", "end:"))
