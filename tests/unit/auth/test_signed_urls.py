"""Signed URLs lead to the endpoint that has the path, on the base URL of the operator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.signed_urls import SignedUrlFactory, StoredUrls, match_object_path, no_public_url
from gateway.cli.check import check
from gateway.domain.metadata import MAX_METADATA_BYTES
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.domain.paths import split_target
from gateway.errors import Refusal
from gateway.settings import load
from gateway.signing.urls import UrlSigner
from gateway.storage.protocols import PresignedRequest

SIGNER = UrlSigner([b"k" * 32])


def links(**said: Any) -> SignedUrlFactory:
    return SignedUrlFactory(load(said, {}), SIGNER, lambda: "https://files.example")


@pytest.mark.parametrize(
    ("said", "method", "path", "leads_to"),
    [
        ({}, "PUT", "/upload/a b", "/upload/a%20b"),
        ({}, "PUT", "upload/a", "/upload/a"),
        ({}, "GET", "/upload/a", "/-/objects/upload/a"),
        ({"downloads": "true"}, "GET", "/upload/a", "/upload/a"),
        ({"downloads": "true"}, "HEAD", "/upload/a", "/upload/a"),
        ({"downloads": "true"}, "GET", "/exports/a", "/-/objects/exports/a"),
        ({}, "PUT", "/exports/a", "/-/objects/exports/a"),
        ({"file_upload_api_path": "/{filepath}"}, "PUT", "/upload/a", "/-/objects/upload/a"),
        ({"file_upload_api_path": "/upload/{id}"}, "PUT", "/upload/a", "/-/objects/upload/a"),
    ],
)
async def test_a_url_leads_to_an_endpoint_with_its_exact_path(
    said: dict[str, Any], method: str, path: str, leads_to: str
) -> None:
    url = await links(**said).sign_url(method, path)
    assert isinstance(url, str)
    assert url.partition("?")[0] == f"https://files.example{leads_to}"
    assert (
        SIGNER.verify(method, *split_target(url.removeprefix("https://files.example"))).expires
        <= time.time() + 900
    )


@pytest.mark.parametrize(
    ("arguments", "terms"),
    [
        (("PATCH", "/upload/a"), {}),
        (("DELETE", "/upload/a"), {}),
        (("put", "/upload/a"), {}),
        (("PUT", "/a/../b"), {}),
        (("PUT", "/.gateway/x"), {}),
        (("PUT", "/a"), {"expires": 0}),
        (("PUT", "/a"), {"expires": 604_801}),
        (("PUT", "/a"), {"metadata": {"a b": "x"}}),
        (("PUT", "/a"), {"metadata": {"a": "x" * MAX_METADATA_BYTES}}),
        (("GET", "/a"), {"overwrite": False}),
    ],
)
async def test_what_makes_no_sense_is_a_value_error(
    arguments: tuple[str, str], terms: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"."):
        await links().sign_url(*arguments, **terms)


async def test_names_of_metadata_are_small_and_fractions_of_seconds_are_cut() -> None:
    url = str(await links().sign_url("PUT", "/a", metadata={"Title": "x"}, expires=60.9))  # type: ignore[arg-type]  # scripts are not checked
    found = SIGNER.verify("PUT", *split_target(url.removeprefix("https://files.example")))
    assert found.metadata == {"title": "x"}


async def test_a_worker_without_public_url_says_what_it_needs() -> None:
    nowhere = SignedUrlFactory(load({}, {}), SIGNER, no_public_url)
    with pytest.raises(RuntimeError, match="set --public-url"):
        await nowhere.sign_url("PUT", "/a")


@pytest.mark.parametrize(
    ("path", "leads_to"), [("/upload/a b", "/upload/a%20b"), ("/photos/a", "/-/objects/photos/a")]
)
async def test_a_post_is_a_form_of_the_gateway(path: str, leads_to: str) -> None:
    form = await links().sign_url("POST", path, once=True, overwrite=False, metadata={"a": "b"})
    assert isinstance(form, dict)
    assert form["url"] == f"https://files.example{leads_to}"
    fields = {name.removeprefix("X-Gateway-"): value for name, value in form["fields"].items()}
    grant = SIGNER.verify_form(leads_to, "", fields)
    assert (grant.metadata, grant.on_conflict, grant.once) == ({"a": "b"}, "reject", fields["Once"])


class _Bucket:
    """A storage that signs any request."""

    async def sign(self, grant: Any, *, expires: float) -> PresignedRequest | None:
        fields = {"policy": "p"} if grant.method == "POST" else {}
        return PresignedRequest(grant.method, f"https://bucket.example{grant.path}", {}, fields)


async def test_a_bucket_signs_for_itself_but_not_what_has_to_be_counted() -> None:
    there = SignedUrlFactory(load({}, {}), SIGNER, lambda: "https://files.example", _Bucket())  # type: ignore[arg-type]  # the part that is used
    assert await there.sign_url("PUT", "/a") == "https://bucket.example/a"
    assert await there.sign_url("POST", "/a") == {
        "url": "https://bucket.example/a",
        "fields": {"policy": "p"},
    }
    once = await there.sign_url("PUT", "/a", once=True)
    assert str(once).startswith("https://files.example/-/objects/a?")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/-/objects/a/b%20c", "/a/b c"),
        ("/-/objects", None),
        ("/-/objectsx/a", None),
        ("/upload/a", None),
    ],
)
def test_the_endpoint_of_stored_paths_parses_the_rest_of_the_path(raw: str, path: str | None) -> None:
    match = match_object_path(raw)
    assert match == (None if path is None else PathMatch(path, {"filepath": path[1:]}))


@pytest.mark.parametrize(
    "raw", ["/-/objects/", "/-/objects/a%2Fb", "/-/objects/../x", "/-/objects/a//b"]
)
def test_bad_paths_below_the_endpoint_are_refused(raw: str) -> None:
    with pytest.raises(Refusal, match="path"):
        match_object_path(raw)


def test_scripts_under_test_get_a_url_that_leads_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: h\nevent: APIGW.OnFileUploading\nscript: |\n"
        "  async def h(event, handle):\n"
        "      url = await sign_url('GET', '/upload/x', expires=60)\n"
        "      await handle.terminate(code=403, output=url.partition('?')[0])\n"
        "tests:\n- name: it signs\n"
        "  expect: {status: 403, output: 'http://gateway.invalid/-/objects/upload/x'}\n"
    )
    assert check([tmp_path]) == 0, capsys.readouterr()


def test_a_stored_path_has_an_address_on_the_upload_path_or_below_the_endpoint_of_objects() -> None:
    urls = StoredUrls(UploadPathTemplate.parse("/upload/{filepath}"), "https://files.example/sub")
    assert urls.address_of("/upload/a b") == "https://files.example/sub/upload/a%20b"
    assert urls.address_of("/archive/é?") == "https://files.example/sub/-/objects/archive/%C3%A9%3F"
