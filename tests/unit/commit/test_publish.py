"""Final names: who is first has it, and names made up by us are new, legal and recognizable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.commit import publish
from gateway.domain import paths
from gateway.domain.model import OnConflict, Upload, new_id
from gateway.errors import Refusal
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.tree import DirectoryTree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[DirectoryTree]:
    (tmp_path / "data").mkdir()
    opened = DirectoryTree(tmp_path / "data", [])
    yield opened
    opened.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "f.txt"


@pytest.fixture
def parent(tree: DirectoryTree) -> Iterator[OpenDirectory]:
    with tree.open_parent(("f.txt",)) as opened:
        yield opened


def upload(on_conflict: OnConflict = "replace", *, must_be_new: bool = False) -> Upload:
    return Upload(new_id(0), "/f.txt", on_conflict=on_conflict, must_be_new=must_be_new)


def receive(incoming: IncomingDirectory, content: bytes) -> str:
    body = incoming.create(new_id(0), 0o640)
    body.buffer(content)
    body.finalize(durable=False)
    return body.upload_id


# -- the look at the name


@pytest.mark.parametrize("policy", ["replace", "reject", "rename"])
@pytest.mark.parametrize("must_be_new", [False, True])
def test_a_free_name_is_kept(parent: OpenDirectory, policy: OnConflict, must_be_new: bool) -> None:
    assert publish.choose_name(upload(policy, must_be_new=must_be_new), parent, ()) is False
    assert parent.name == "f.txt"


@pytest.mark.parametrize("policy", ["replace", "reject", "rename"])
def test_if_none_match_wins_over_every_policy(
    tree: DirectoryTree, target: Path, policy: OnConflict
) -> None:
    target.touch()
    with tree.open_parent(("f.txt",)) as parent, pytest.raises(Refusal) as caught:
        publish.choose_name(upload(policy, must_be_new=True), parent, ())
    assert caught.value.code == "already_exists"


def test_an_existing_name_is_replaced_rejected_or_renamed(parent: OpenDirectory, target: Path) -> None:
    target.touch()
    parent.target_stat = parent.stat()
    assert publish.choose_name(upload("replace"), parent, ()) is True
    with pytest.raises(Refusal) as caught:
        publish.choose_name(upload("reject"), parent, ())
    assert caught.value.code == "conflict"
    assert publish.choose_name(upload("rename"), parent, ()) is False
    assert parent.name == "f-1.txt"


def test_a_name_given_in_the_same_batch_counts_as_existing(parent: OpenDirectory) -> None:
    taken = {(*parent.folder, "f.txt"), (*parent.folder, "f-1.txt")}
    assert publish.choose_name(upload("rename"), parent, taken) is False
    assert parent.name == "f-2.txt"


def test_a_dangling_link_takes_a_name_too(parent: OpenDirectory, target: Path) -> None:
    target.symlink_to("nowhere")
    parent.target_stat = parent.stat()
    with pytest.raises(Refusal):
        publish.choose_name(upload("reject"), parent, ())


# -- names made up by us


def free_name(tree: DirectoryTree, name: str, taken: int = 1) -> list[str]:
    """Return `taken` names in a row that are given beside `name`."""
    with tree.open_parent((name,)) as parent:
        given_away = {(*parent.folder, name)}
        names = []
        for _ in range(taken):
            names.append(publish.free_name(upload("rename"), parent, given_away))
            given_away.add((*parent.folder, names[-1]))
        return names


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("a.tar.gz", "a.tar-1.gz"),
        ("README", "README-1"),
        (".bashrc", ".bashrc-1"),
        (".config.yaml", ".config-1.yaml"),
        ("dot.", "dot-1."),
        ("a b.txt", "a b-1.txt"),
        ("日本.png", "日本-1.png"),
        ("a" * 255, "a" * 253 + "-1"),
        ("a" * 251 + ".bin", "a" * 249 + "-1.bin"),
        ("ü" * 125 + ".bin", "ü" * 124 + "-1.bin"),
        ("a." + "b" * 253, "a." + "b" * 251 + "-1"),
    ],
)
def test_the_number_stands_before_the_suffix(tree: DirectoryTree, name: str, renamed: str) -> None:
    assert free_name(tree, name) == [renamed]


def test_after_twenty_numbers_a_part_of_the_id_is_used_and_then_it_is_a_conflict(
    tree: DirectoryTree,
) -> None:
    names = free_name(tree, "a.bin", 19)
    assert names == [f"a-{number}.bin" for number in range(1, 20)]
    one = upload("rename")
    with tree.open_parent(("a.bin",)) as parent:
        taken = {(*parent.folder, name) for name in [*names, "a.bin"]}
        assert publish.free_name(one, parent, taken) == f"a-{one.id[10:26]}.bin"
        taken.add((*parent.folder, f"a-{one.id[10:26]}.bin"))
        assert publish.free_name(one, parent, taken) == f"a-{one.id}.bin"
        taken.add((*parent.folder, f"a-{one.id}.bin"))
        with pytest.raises(Refusal) as caught:
            publish.free_name(one, parent, taken)
    assert caught.value.code == "conflict"


@pytest.fixture(scope="module")
def empty_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DirectoryTree]:
    opened = DirectoryTree(tmp_path_factory.mktemp("data"), [])
    yield opened
    opened.close()


LEGAL = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="/\\"), min_size=1
)
NAMES = LEGAL | st.builds(lambda stem, suffix: f"{stem}.{suffix}", LEGAL, LEGAL)
LONG_NAMES = st.builds(lambda name, times: name * times, NAMES, st.integers(1, 260))


@given(LONG_NAMES, st.integers(1, 22))
def test_any_name_leads_to_new_legal_names_of_its_kind(
    empty_tree: DirectoryTree, name: str, count: int
) -> None:
    while len(name.encode()) > 255:
        name = name[:-1]
    assume(name not in {".", "..", ".gateway"})
    names = free_name(empty_tree, name, min(count, 19))
    assert len({name, *names}) == len(names) + 1
    stem, dot, suffix = name.rpartition(".")
    for renamed in names:
        assert paths.check_path(renamed) == (renamed,)
        if stem and len(suffix.encode()) <= paths.MAX_SUFFIX_BYTES:
            assert renamed.endswith(dot + suffix)


# -- giving the name


def test_replacing_puts_the_body_over_the_file(
    incoming: IncomingDirectory, parent: OpenDirectory, target: Path
) -> None:
    publish.replace(incoming, receive(incoming, b"one"), parent)
    publish.replace(incoming, receive(incoming, b"two"), parent)
    assert target.read_bytes() == b"two"
    assert list(incoming.upload_ids()) == []


def test_a_folder_that_took_the_name_is_not_replaced(
    incoming: IncomingDirectory, parent: OpenDirectory, target: Path
) -> None:
    target.mkdir()
    upload_id = receive(incoming, b"one")
    with pytest.raises(Refusal) as caught:
        publish.replace(incoming, upload_id, parent)
    assert caught.value.code == "conflict"
    assert list(incoming.upload_ids()) == [upload_id]


def test_a_link_that_took_the_name_is_not_followed(
    incoming: IncomingDirectory, parent: OpenDirectory, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    target.symlink_to(tmp_path / "precious")
    with pytest.raises(publish.NameTakenError):
        publish.add(incoming, receive(incoming, b"two"), parent)
    publish.replace(incoming, receive(incoming, b"one"), parent)
    assert target.read_bytes() == b"one"
    assert not target.is_symlink()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_adding_takes_a_free_name_only(
    incoming: IncomingDirectory, parent: OpenDirectory, target: Path
) -> None:
    publish.add(incoming, receive(incoming, b"one"), parent)
    second = receive(incoming, b"two")
    with pytest.raises(publish.NameTakenError):
        publish.add(incoming, second, parent)
    assert target.read_bytes() == b"one"
    assert target.stat().st_nlink == 1
    assert list(incoming.upload_ids()) == [second]


def test_a_private_name_that_cannot_be_removed_is_left_to_recovery(
    incoming: IncomingDirectory, parent: OpenDirectory, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise OSError(5, "the disk is dying")

    upload_id = receive(incoming, b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        publish.add(incoming, upload_id, parent)
    assert target.read_bytes() == b"one"
    assert list(incoming.upload_ids()) == [upload_id]
