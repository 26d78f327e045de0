"""Links: the file, what is known of them in memory, where they lead."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.auth.links import store as store_module
from gateway.auth.links.creation import LinkTerms, create_link, upload_folder
from gateway.auth.links.holders import BEARER_TTL, LinkHolders
from gateway.auth.links.link import Link, new_link_id, new_link_secret
from gateway.auth.links.store import LinkStore, LinkUse
from gateway.auth.links.watcher import LinkWatcher
from gateway.auth.tokens import token_digest
from gateway.domain.path_template import UploadPathTemplate
from gateway.errors import ConfigError, Refusal
from gateway.signing.keys import LinkSigner

KEY = b"k" * 48
NOW = 1_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> LinkStore:
    return LinkStore(tmp_path)


def a_link(link_id: str, **terms: object) -> Link:
    link = Link(link_id, "drop", "/upload/in/", NOW)
    return replace(link, **terms)  # type: ignore[arg-type]


def holders_of(store: LinkStore, now: float = NOW) -> LinkHolders:
    holders = LinkHolders(LinkSigner([KEY]), lambda: now)
    holders.replace(store.read())
    return holders


def test_a_link_is_found_by_its_secret_until_it_ends(store: LinkStore) -> None:
    store.create(a_link("aaaaaaaa", expires=NOW + 10), token_digest("ugl_one"))
    found = holders_of(store).find(["other", "ugl_one"])
    assert found is not None
    assert (found.link.id, found.is_open) == ("aaaaaaaa", True)
    assert holders_of(store).find(["other"]) is None
    for holders, secret in ((holders_of(store, NOW + 10), "ugl_one"), (holders_of(store), "ugl_two")):
        with pytest.raises(Refusal, match="not valid") as refused:
            holders.find([secret])
        assert refused.value.code == "link_unavailable"
    assert store.revoke("aaaaaaaa")
    assert not store.revoke("aaaaaaaa")
    with pytest.raises(Refusal):
        holders_of(store).find(["ugl_one"])


def test_a_password_is_exchanged_for_a_credential_that_ends_with_the_link(store: LinkStore) -> None:
    store.create(a_link("aaaaaaaa", password="hash", expires=NOW + 100), token_digest("ugl_one"))
    holders = holders_of(store)
    found = holders.find(["ugl_one"])
    assert found is not None
    assert not found.is_open
    bearer = holders.exchange(found.link)
    assert bearer.expires == NOW + 100 < NOW + BEARER_TTL
    again = holders.find([bearer.token])
    assert again is not None
    assert again.is_open
    other = LinkHolders(LinkSigner([b"another installation" * 3]), lambda: NOW)
    other.replace(store.read())
    for stranger in (other, holders_of(store, bearer.expires)):
        with pytest.raises(Refusal):
            stranger.find([bearer.token])


def test_uses_are_written_for_links_that_are_there(store: LinkStore) -> None:
    store.create(a_link("aaaaaaaa"), "digest")
    holders = holders_of(store)
    holders.in_force("aaaaaaaa")
    holders.count_download("aaaaaaaa")
    assert holders.take_uses() == {"aaaaaaaa": LinkUse(1, NOW)}
    assert holders.take_uses() == {}
    holders.count_download("aaaaaaaa")  # its use was taken a moment before
    assert holders.take_uses() == {"aaaaaaaa": LinkUse(1, NOW)}
    store.note_uses({"aaaaaaaa": LinkUse(2, NOW), "gone": LinkUse(1, NOW)})
    store.note_uses({"aaaaaaaa": LinkUse(1, NOW - 5)})
    link = store.read().links["aaaaaaaa"]
    assert (link.downloads, link.last_used) == (3, NOW)


def test_the_file_is_the_owners_and_holds_no_secret(store: LinkStore) -> None:
    secret = new_link_secret()
    store.create(a_link(new_link_id()), token_digest(secret))
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert secret.encode() not in store.path.read_bytes()
    assert secret.removeprefix("ugl_").encode() not in store.path.read_bytes()


def test_a_full_file_gives_up_a_link_that_has_ended(
    store: LinkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_LINKS", 2)
    store.create(a_link("old", expires=NOW - 1), "1")
    store.create(a_link("new"), "2")
    store.create(a_link("newer"), "3")
    assert store.read().links.keys() == {"new", "newer"}
    with pytest.raises(ConfigError, match="as many as there may be"):
        store.create(a_link("newest"), "4")


def test_a_file_of_a_newer_version_and_a_broken_one_are_told(store: LinkStore) -> None:
    store.create(a_link("a"), "1")
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ConfigError, match="newer version"):
        store.read()
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="the links cannot be used"):
        store.read()


def test_while_the_file_cannot_be_read_the_links_stay_in_force(store: LinkStore) -> None:
    store.create(a_link("aaaaaaaa"), token_digest("ugl_one"))
    holders = LinkHolders(LinkSigner([KEY]), lambda: NOW)
    watcher = LinkWatcher(store, holders, reports=True, is_alone=True)
    watcher.refresh()
    content = store.path.read_bytes()
    store.path.write_bytes(b"no database" * 1000)
    watcher.start()
    watcher.close()
    assert holders.find(["ugl_one"]) is not None
    store.path.write_bytes(content)
    store.revoke("aaaaaaaa")
    watcher.refresh()
    with pytest.raises(Refusal):
        holders.find(["ugl_one"])


@pytest.mark.parametrize(
    ("template", "stored", "folder", "leads"),
    [
        ("/upload/{filepath}", None, "/upload/in/", "/upload/in/"),
        ("/upload/{filepath}", None, "/upload/mine & yours/", "/upload/mine%20&%20yours/"),
        ("/upload/{filepath}", None, "/elsewhere/", None),
        ("/api/{tenant}/{filename}", "/{tenant}/{filename}", "/acme/", "/api/acme/"),
        ("/api/{tenant}/{filename}", "/{tenant}/{filename}", "/acme/deeper/", None),
        ("/api/{filename}", None, "/upload/", "/api/"),
        ("/api/{tenant}", None, "/upload/", None),
    ],
)
def test_a_drop_link_leads_to_the_folder_of_uploads_that_are_stored_there(
    template: str, stored: str | None, folder: str, leads: str | None
) -> None:
    assert upload_folder(UploadPathTemplate.parse(template, stored), folder) == leads


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        (LinkTerms("both", "/upload/in/", 60), "kind: must be one of drop, share"),
        (LinkTerms("drop", "/elsewhere/", 60), "no upload path of this gateway leads below"),
        (LinkTerms("drop", "/upload/../x/", 60), "folder: segment 2 of the path is a dot segment"),
        (LinkTerms("share", "/.gateway/", 60), "reserved for the gateway's state"),
        (LinkTerms("share", "/", 60), "folder: segment 1"),
        (LinkTerms("share", "/-/", 60), "is a place of the gateway itself"),
        (LinkTerms("share", "/upload/in/", 60, max_files=1), "limit uploads: a share link has none"),
        (LinkTerms("drop", "/upload/in/", 0), "expires at once"),
        (LinkTerms("drop", "/upload/in/", 60, max_files=0), "max_files: must be at least 1"),
        (LinkTerms("drop", "/upload/in/", 60, max_bytes=1 << 60), "max_bytes: must be at least 1"),
    ],
)
def test_terms_that_make_no_link_are_refused(store: LinkStore, terms: LinkTerms, fault: str) -> None:
    template = UploadPathTemplate.parse("/upload/{filepath}")
    with pytest.raises(ValueError, match=fault):
        create_link(store, terms, template, None, NOW)
    assert not store.path.exists()
