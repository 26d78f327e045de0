"""The parts of a form: what is read, in whatever pieces it comes, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.uploads.form_parts import (
    MAX_BETWEEN_BYTES,
    MAX_PART_HEADER_BYTES,
    MAX_PARTS,
    FormReader,
    boundary_of,
)
from gateway.errors import ClientDisconnected, Refusal

B = "----gateway7MA4YWxkTrZu0gW"


class Body:
    """A body in pieces; `read` counts how often it was asked."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._error = error
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        piece = next(self._pieces, b"")
        if not piece and self._error is not None:
            raise self._error
        return piece


def part(
    content: bytes = b"hello", disposition: str = 'name="f"; filename="a.txt"', *lines: str
) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *lines])
    return b"--" + B.encode() + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


END = f"--{B}--\r\n".encode()


async def read_all(*pieces: bytes) -> list[tuple[str, str | None, bytes]]:
    reader, found = FormReader(B, Body(*pieces).read), []
    while (head := await reader.next_part()) is not None:
        content = b""
        while chunk := await reader.read():
            content += chunk
        found.append((head.name, head.filename, content))
    return found


async def refusal_of(*pieces: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await read_all(*pieces)
    return caught.value


@given(
    contents=st.lists(st.binary(max_size=200) | st.just(b"\r\n--" + B.encode()[:-1]), max_size=4),
    cuts=st.lists(st.integers(0, 1500), max_size=12),
)
async def test_parts_are_the_same_in_whatever_pieces_they_come(
    contents: list[bytes], cuts: list[int]
) -> None:
    body = b"".join(map(part, contents)) + END
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[start:end] for start, end in itertools.pairwise(places)]
    assert await read_all(*pieces) == [("f", "a.txt", content) for content in contents]


async def test_a_form_that_comes_byte_by_byte_is_read() -> None:
    body = part(b"\r\n--\r\n") + part(b"v", 'name="title"') + END
    pieces = [bytes([byte]) for byte in body]
    assert await read_all(*pieces) == [("f", "a.txt", b"\r\n--\r\n"), ("title", None, b"v")]


async def test_no_more_is_held_than_one_piece_of_a_part() -> None:
    reader = FormReader(B, Body(part(b"x" * 1000)[:-2], *[b"y" * 65536] * 4, b"\r\n" + END).read)
    assert await reader.next_part() is not None
    sizes = []
    while chunk := await reader.read():
        sizes.append(len(chunk))
    assert (sum(sizes), max(sizes)) == (1000 + 4 * 65536, 65536)


async def test_what_is_unread_of_a_part_is_passed_over() -> None:
    reader = FormReader(B, Body(part(b"a" * 100) + part(b"b", 'name="g"'), END).read)
    assert await reader.next_part() is not None
    second = await reader.next_part()
    assert second is not None
    assert (second.name, await reader.read()) == ("g", b"b")
    assert (await reader.next_part(), await reader.read()) == (None, b"")


@pytest.mark.parametrize(
    ("disposition", "name", "filename"),
    [
        ('name="f"; filename="a b.txt"', "f", "a b.txt"),
        ('name="f"; filename="r%22s\u00e9.txt"', "f", 'r"s\u00e9.txt'),
        ('name="f"; filename=plain.txt', "f", "plain.txt"),
        ("name=\"f\"; filename*=UTF-8''r%C3%A9sum%C3%A9.txt", "f", "r\u00e9sum\u00e9.txt"),
        ('name="f"; filename="a"; filename*=UTF-8\'\'b', "f", "a"),
        ('name="f"; filename=""', "f", ""),
        ('name="f"; filename="../../etc/passwd"', "f", "../../etc/passwd"),
        ('name="f"; filename="a\x00b"', "f", "a\x00b"),
        ('name="title"', "title", None),
        ("name=\"a; filename*=UTF-8''b\"", "a; filename*=UTF-8''b", None),
    ],
)
async def test_name_and_filename_are_read(disposition: str, name: str, filename: str | None) -> None:
    [(found_name, found_filename, _)] = await read_all(part(b"x", disposition) + END)
    assert (found_name, found_filename) == (name, filename)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        part()[:-2],
        part(),
        part() + b"--" + B.encode(),
        part() + b"--" + B.encode() + b"-",
        part()[:40],
    ],
    ids=["nothing", "no boundary", "in a part", "behind a part", "half", "half of the end", "in a head"],
)
async def test_a_form_that_ends_before_its_last_boundary_is_incomplete(body: bytes) -> None:
    assert (await refusal_of(body)).code == "incomplete_body"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (part(b"x", 'name="f"; filename="a"', "X: " + "y" * (MAX_PART_HEADER_BYTES + 1)), 431),
        (part(b"x", 'name="f"; filename="a"', *[f"X-{n}: y" for n in range(20)]), 431),
        (b"--" + B.encode() + b"\r\nX-Endless: " + b"y" * 70_000, 431),
        (b"--" + B.encode() + b"\r\nX: y\r\n\r\nno disposition\r\n", 400),
        (part(b"x", 'name="f"', "Content-Disposition: form-data; name=g"), 400),
        (b"--" + B.encode() + b"\nContent-Disposition: form-data; name=f\n\nx\n", 400),
        (b"--" + B.encode() + b"\r\nContent-Disposition: attachment\r\n\r\nx\r\n", 400),
        (b"--" + B.encode() + b"\r\nContent-Disposition: form-data; name=\xff\r\n\r\nx\r\n", 400),
        (part(b"x") + b"--" + B.encode() + b"junk\r\n", 400),
        (part(b"x", 'name="f"', "Content-Transfer-Encoding: base64"), 415),
        (part(b"x", 'name="f"', "Content-Type: multipart/mixed; boundary=inner"), 415),
        (part(b"x", "name=\"f\"; filename*=latin1''%E9"), 400),
        (part(b"x", "name=\"f\"; filename*=UTF-8''%FF"), 400),
        (part(b"x", "name=\"f\"; filename*=UTF-8''a; filename*=UTF-8''b"), 400),
        (part(b"xyz", 'name="f"; filename="a"', "Content-Length: 2"), 400),
    ],
)
async def test_a_hostile_form_is_refused(body: bytes, code: int) -> None:
    assert (await refusal_of(body, END)).status == code


async def test_a_form_may_have_so_many_parts_and_no_more() -> None:
    refusal = await refusal_of(part(b"") * (MAX_PARTS + 1) + END)
    assert (refusal.code, str(MAX_PARTS) in refusal.message) == ("bad_request", True)


async def test_what_stands_around_the_parts_is_passed_over_and_bounded() -> None:
    assert await read_all(b"preamble\r\n" + part(b"x") + END + b"epilogue") == [("f", "a.txt", b"x")]
    assert await read_all(part(b"x"), END[:-2], b"\r\n") == [("f", "a.txt", b"x")]
    assert (await refusal_of(*[b"p" * 8192] * 100)).code == "incomplete_body"
    endless = Body(part(b"x") + END, *[b"e" * 8192] * 1000)
    reader = FormReader(B, endless.read)
    assert await reader.next_part() is not None
    assert await reader.next_part() is None
    assert endless.reads <= MAX_BETWEEN_BYTES // 8192 + 3


async def test_a_cut_connection_stays_one() -> None:
    reader = FormReader(B, Body(part(b"x" * 100)[:-10], error=ClientDisconnected("gone")).read)
    assert await reader.next_part() is not None
    with pytest.raises(ClientDisconnected):
        await reader.next_part()


async def test_a_field_is_text_of_bounded_length() -> None:
    for content, code in ((b"\xff", "bad_request"), (b"x" * 11, "too_large")):
        reader = FormReader(B, Body(part(content, 'name="title"') + END).read)
        await reader.next_part()
        with pytest.raises(Refusal) as caught:
            await reader.read_text(10)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "boundary"),
    [
        ("multipart/form-data; boundary=abc", "abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b?c"', "a b?c"),
        ("multipart/form-data;boundary=abc; charset=utf-8", "abc"),
    ],
)
def test_the_boundary_is_read(text: str, boundary: str) -> None:
    assert boundary_of({"content-type": [text]}) == boundary


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("multipart/form-data", "bad_request"),
        ("multipart/form-data; boundary=", "bad_request"),
        ('multipart/form-data; boundary=""', "bad_request"),
        ("multipart/form-data; boundary=a; boundary=b", "bad_request"),
        ("multipart/form-data; boundary=" + "a" * 71, "bad_request"),
        ('multipart/form-data; boundary="a "', "bad_request"),
        ('multipart/form-data; boundary="a\tb"', "bad_request"),
        ("multipart/mixed; boundary=a", "unsupported_media_type"),
        ("text/plain", "unsupported_media_type"),
    ],
)
def test_a_body_without_one_usable_boundary_is_refused(text: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        boundary_of({"content-type": [text]})
    assert caught.value.code == code
    with pytest.raises(Refusal):
        boundary_of({"content-type": [text, text]})
