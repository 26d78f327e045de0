"""The bench of the way into a bucket: it plays with real servers and looks at what landed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import s3 as bench
from bench.samples import BenchError


@pytest.mark.slow
def test_it_tells_rates_ratios_and_memory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--size", "9", "--rounds", "1", "--store", "rclone", "--folder", str(tmp_path)]
    assert bench.main(words) == 0
    told = capsys.readouterr().out
    assert re.search(r"rclone +gateway +\d+ MiB/s", told)
    assert re.search(r"rclone copyto +\d+ MiB/s .* gateway is \d+\.\d\d x", told)
    assert re.search(r"aws s3 cp +\d+ MiB/s .* gateway is \d+\.\d\d x", told)
    assert re.search(r"gateway's peak \d+ MiB resident", told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_other_bytes_than_were_sent_are_no_figure(tmp_path: Path) -> None:
    store = bench.Store("rclone", tmp_path / "rclone")
    with store.running():
        (store.folder / bench.BUCKET / "aws").mkdir()
        (store.folder / bench.BUCKET / "aws" / "0").write_bytes(b"other")
        with pytest.raises(BenchError, match="other bytes"):
            bench.check(store, bench.AWS, "0" * 64)
        with pytest.raises(BenchError, match="rclone ended with"):
            store.run([bench.program("rclone"), "cat", "store:no-such-bucket/x"])


def test_a_source_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    bench.make_source(tmp_path / "source", (2 << 20) + 5)
    assert (tmp_path / "source").stat().st_size == (2 << 20) + 5


def test_a_folder_that_is_too_small_is_named_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert bench.main(["--size", str(1 << 30), "--store", "rclone", "--folder", str(tmp_path)]) == 1
    assert f"{tmp_path} has" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
