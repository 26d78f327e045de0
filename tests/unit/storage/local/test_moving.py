"""Moves on a disk: what has a free name first gets it, also where the file system knows only links."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.domain.model import OnConflict
from gateway.errors import Refusal
from gateway.storage.local import moving
from gateway.storage.local.moving import move_file
from gateway.storage.local.tree import DirectoryTree

Move = Callable[[str, str, OnConflict], str]


class OldSystem:
    """A C library whose `renameat2` is not known to the file system."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture(params=["renameat2", "unknown to the file system", "unknown to the library"])
def move(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Move]:
    library = {"unknown to the file system": OldSystem(), "unknown to the library": object()}
    if request.param in library:
        monkeypatch.setattr(moving, "_libc", library[request.param])
    tree = DirectoryTree(tmp_path, [tmp_path / "plugins"])

    def move(source: str, target: str, on_conflict: OnConflict) -> str:
        return move_file(tree, contextlib.nullcontext, source, target, None, on_conflict)

    yield move
    tree.close()


def test_of_many_that_want_a_name_one_gets_it(move: Move, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_text(str(number))

    def outcome(number: int) -> str:
        try:
            return move(f"/{number}", "/one/name", "reject")
        except Refusal as refusal:
            return refusal.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(20)))
    assert sorted(outcomes) == ["/one/name", *["conflict"] * 19]
    winner = outcomes.index("/one/name")
    assert (tmp_path / "one/name").read_text() == str(winner)
    assert sorted(os.listdir(tmp_path)) == sorted(["one", *(str(n) for n in range(20) if n != winner)])


def test_all_that_take_a_free_name_beside_it_get_one(move: Move, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").write_text(str(number))
    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(lambda number: move(f"/{number}", "/one/a.txt", "rename"), range(20)))
    assert len(set(moved)) == 20
    assert [(tmp_path / path[1:]).read_text() for path in moved] == [str(n) for n in range(20)]
    assert os.listdir(tmp_path) == ["one"]


@pytest.mark.parametrize("on_conflict", ["replace", "reject", "rename"])
def test_a_move_that_left_both_names_is_completed_by_the_same_call(
    move: Move, tmp_path: Path, on_conflict: OnConflict
) -> None:
    (tmp_path / "a").write_text("a")
    os.link(tmp_path / "a", tmp_path / "b")
    assert move("/a", "/b", on_conflict) == "/b"
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("on_conflict", ["replace", "reject", "rename"])
def test_no_move_leads_to_a_place_of_the_gateway_or_a_folder(
    move: Move, tmp_path: Path, on_conflict: OnConflict
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "a").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/tmp")
    codes = {"/plugins/x": "forbidden", "/folder": "conflict", "/a/b": "conflict", "/link/x": "bad_path"}
    for target, code in codes.items():
        with pytest.raises(Refusal) as refused:
            move("/a", target, on_conflict)
        assert refused.value.code == code, target
    for source, code in {"/folder": "conflict", "/link": "conflict", "/plugins/x": "forbidden"}.items():
        with pytest.raises(Refusal) as refused:
            move(source, "/b", on_conflict)
        assert refused.value.code == code, source
    assert (tmp_path / "a").read_text() == "a"
