"""DIRECTORY with real files: nothing outside is touched, nothing protected is reached, nothing leaks."""

from __future__ import annotations

import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from gateway.domain import paths
from gateway.domain.path_template import UploadPathTemplate
from gateway.errors import ConfigError, Refusal
from gateway.storage.local.tree import DirectoryTree

CANARY = b"outside, must not change"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the tree; whatever a test did, it must be as it was."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "canary").write_bytes(CANARY)
    before = folder.stat().st_mtime_ns
    yield folder
    assert (folder / "canary").read_bytes() == CANARY
    assert os.listdir(folder) == ["canary"]
    assert folder.stat().st_mtime_ns == before
    assert set(os.listdir(tmp_path)) <= {"outside", "data", "moved"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def tree(root: Path) -> Iterator[DirectoryTree]:
    opened = DirectoryTree(root, protected=[])
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() <= before


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def refused_by_all(tree: DirectoryTree, path: str, code: str) -> None:
    for call in (tree.lstat, tree.open_parent, tree.open_file):
        with pytest.raises(Refusal) as caught:
            call(paths.check_path(path))
        assert caught.value.code == code
        assert root_of(tree) not in caught.value.message


def root_of(tree: DirectoryTree) -> str:
    fd = tree.open_folder(())
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def store(tree: DirectoryTree, path: str, content: bytes = b"x") -> None:
    with tree.open_parent(paths.check_path(path)) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(parent.name, flags, 0o640, dir_fd=parent.fd), "wb") as file:
            file.write(content)


def test_missing_folders_are_created_by_open_parent_and_not_by_lstat(
    tree: DirectoryTree, root: Path
) -> None:
    assert tree.lstat(("upload", "a", "f")) is None
    assert os.listdir(root) == []
    previous = os.umask(0)
    try:
        with tree.open_parent(("upload", "a", "f")) as parent:
            assert (parent.name, parent.stat()) == ("f", None)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((root / "upload/a").stat().st_mode) == 0o750


def test_an_existing_file_is_found_and_opened(tree: DirectoryTree, root: Path) -> None:
    store(tree, "/upload/f", b"hello")
    found = tree.lstat(("upload", "f"))
    assert found is not None
    assert found.st_size == 5
    with os.fdopen(tree.open_file(("upload", "f")), "rb") as file:
        assert file.read() == b"hello"
    with tree.open_parent(("upload", "f")) as parent:
        again = parent.stat()
        folder = (root / "upload").stat()
        assert parent.folder == (folder.st_dev, folder.st_ino)
    assert again is not None
    assert again.st_ino == found.st_ino


def test_opening_a_missing_file_raises_file_not_found(tree: DirectoryTree) -> None:
    for path in ("f", "a/b/f"):
        with pytest.raises(FileNotFoundError):
            tree.open_file(paths.check_path(path))


@pytest.mark.parametrize(
    "segments", [("..", "x"), ("a/b",), ("a", ""), (), ("", "a"), (".gateway", "k")]
)
def test_segments_that_were_never_checked_are_refused(
    tree: DirectoryTree, segments: tuple[str, ...]
) -> None:
    for call in (tree.lstat, tree.open_parent, tree.open_file):
        with pytest.raises(Refusal) as caught:
            call(segments)
        assert caught.value.code == "bad_path"


@pytest.mark.parametrize("path", ["link/canary", "link/new/f", "upload/link/canary"])
def test_a_symlink_on_the_way_is_refused(
    tree: DirectoryTree, root: Path, outside: Path, path: str
) -> None:
    (root / "upload").mkdir()
    (root / "link").symlink_to(outside)
    (root / "upload/link").symlink_to("../link")
    refused_by_all(tree, path, "bad_path")


def test_a_target_that_is_no_regular_file_is_a_conflict(
    tree: DirectoryTree, root: Path, outside: Path
) -> None:
    (root / "link").symlink_to(outside / "canary")
    (root / "dangling").symlink_to(outside / "new")
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    for name in ("link", "dangling", "folder", "fifo", "socket"):
        refused_by_all(tree, name, "conflict")


def test_a_file_on_the_way_is_a_conflict_that_names_only_the_clients_path(
    tree: DirectoryTree, root: Path
) -> None:
    store(tree, "/upload/f")
    os.mkfifo(root / "fifo")
    for path in ("upload/f/g", "fifo/g"):
        refused_by_all(tree, path, "conflict")
        with pytest.raises(Refusal, match=f"/{path[:-2]} is a file, not a folder"):
            tree.lstat(paths.check_path(path))


def test_a_folder_swapped_for_a_symlink_after_the_lstat_is_refused(
    tree: DirectoryTree, root: Path, outside: Path
) -> None:
    store(tree, "/upload/a/f")
    assert tree.lstat(("upload", "a", "canary")) is None
    (root / "upload/a").rename(root.parent / "moved")
    (root / "upload/a").symlink_to(outside)
    refused_by_all(tree, "upload/a/canary", "bad_path")


def test_an_open_parent_stays_the_same_folder_when_its_name_is_swapped(
    tree: DirectoryTree, root: Path, outside: Path
) -> None:
    with tree.open_parent(("upload", "a", "canary")) as parent:
        (root / "upload").rename(root.parent / "moved")
        (root / "upload").symlink_to(outside.parent)
        os.close(os.open(parent.name, os.O_WRONLY | os.O_CREAT, dir_fd=parent.fd))
        parent.sync()
    assert (root.parent / "moved/a/canary").exists()


def test_a_protected_place_is_forbidden_by_any_spelling(root: Path) -> None:
    (root / "config").mkdir()
    (root / "plugins").mkdir()
    config = root / "config/gateway.yaml"
    config.write_text("x")
    os.link(config, root / "innocent")
    tree = DirectoryTree(root, [root / "plugins", root / "config/../config/gateway.yaml"])
    for path in ("config/gateway.yaml", "innocent", "plugins/x.yaml", "plugins/new/x.yaml", "plugins"):
        refused_by_all(tree, path, "forbidden")
    (root / "plugins").rename(root / "renamed")
    refused_by_all(tree, "renamed/x.yaml", "forbidden")
    store(tree, "/config/other.yaml")
    tree.close()
    assert config.read_text() == "x"
    assert os.listdir(root / "renamed") == []


def test_a_protected_place_that_is_absent_or_made_anew_is_forbidden_too(root: Path) -> None:
    (root / "key").write_text("old")
    tree = DirectoryTree(root, [root / "config/gateway.yaml", root / "plugins", root / "key"])
    (root / "new").write_text("new")
    (root / "new").rename(root / "key")
    for path in ("config/gateway.yaml", "plugins/x.yaml", "key"):
        refused_by_all(tree, path, "forbidden")
    tree.close()
    assert os.listdir(root) == ["key"]


def test_a_reload_changes_what_is_protected(tree: DirectoryTree, root: Path) -> None:
    store(tree, "/plugins/f")
    tree.reload_protected([root / "plugins"])
    refused_by_all(tree, "plugins/f", "forbidden")
    tree.reload_protected([])
    tree.open_parent(("plugins", "f")).close()


def test_a_protected_folder_that_holds_the_tree_is_a_config_error(
    tree: DirectoryTree, root: Path
) -> None:
    for place in (root, root.parent):
        with pytest.raises(ConfigError, match="lies in the protected folder"):
            DirectoryTree(root, [place])
        with pytest.raises(ConfigError):
            tree.reload_protected([place])


def test_a_folder_on_another_file_system_is_refused_for_storing_only(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a/f").write_text("x")
    tree = DirectoryTree(root, [], device=root.stat().st_dev + 1)
    for call in (tree.lstat, tree.open_parent):
        with pytest.raises(Refusal) as caught:
            call(("a", "f"))
        assert caught.value.code == "other_file_system"
    os.close(tree.open_file(("a", "f")))
    tree.close()


def test_a_tree_reached_through_a_symlink_is_the_operators_choice(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    tree = DirectoryTree(tmp_path / "link", [tmp_path / "link/key"])
    store(tree, "/upload/f")
    refused_by_all(tree, "key", "forbidden")
    assert root_of(tree) == str(root)
    tree.close()


def test_a_name_too_long_for_the_file_system_is_refused(
    tree: DirectoryTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "MAX_SEGMENT_BYTES", 1000)
    for path in ("a" * 256, "a" * 256 + "/f"):
        refused_by_all(tree, path, "bad_path")


def test_a_closed_tree_raises(root: Path) -> None:
    tree = DirectoryTree(root, [])
    tree.close()
    tree.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        tree.lstat(("f",))


def attempt(tree: DirectoryTree, template: UploadPathTemplate, raw: str) -> str:
    try:
        match = template.match(raw)
        assert match is not None
        store(tree, match.path)
    except Refusal as refusal:
        return refusal.code
    return "stored"


def test_every_short_spelling_of_traversal_stores_below_the_root_or_nowhere(
    tree: DirectoryTree, root: Path, outside: Path
) -> None:
    (root / "upload").mkdir()
    (root / "upload/25").symlink_to(outside)
    template = UploadPathTemplate.parse("/upload/{filepath}")
    outcomes: Counter[str] = Counter()
    for length in range(1, 6):
        for spelling in product(("%", "25", "2e", "2f", ".", "/", "\\", "a"), repeat=length):
            outcomes[attempt(tree, template, "/upload/" + "".join(spelling))] += 1
    assert outcomes.total() >= 20_000
    assert outcomes["stored"] > 1000
    assert set(outcomes) == {"stored", "bad_path", "conflict"}


@pytest.mark.parametrize("existing", [0, 3])
def test_only_so_many_new_folders_are_made_for_one_path(root: Path, existing: int) -> None:
    tree = DirectoryTree(root, [], max_new_folders=2)
    names = [f"d{number}" for number in range(existing + 3)]
    if existing:
        root.joinpath(*names[:existing]).mkdir(parents=True)
    for call in (tree.open_parent, tree.lstat_target):
        with pytest.raises(Refusal) as caught:
            call((*names, "f"))
        assert caught.value.code == "bad_path"
        assert "needs 3 new folders, at most 2" in caught.value.message
    assert not root.joinpath(*names[: existing + 1]).exists()
    assert tree.lstat((*names, "f")) is None
    assert tree.lstat_target((*names[:-1], "f")) is None
    tree.open_parent((*names[:-1], "f")).close()
    tree.open_parent((*names, "f")).close()
    assert root.joinpath(*names).is_dir()
    tree.close()
