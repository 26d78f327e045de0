"""plugins/photos: what is taken for a picture, and what its copies hold and do not hold."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import PROJECT
from tests.support.pictures import bomb, gif, noted_png, opened, photo, picture, written

sys.path.append(str(PROJECT / "plugins/photos"))  # while this file is read; then the fixture does

from photo_images import FORMATS, NotAPicture, Sizes, make_copies

PLUGIN = PROJECT / "plugins/photos"
SMALL = Sizes(most_pixels=1_000_000, copy_side=200, thumb_side=40)
RED, BLUE = (254, 0, 0), (0, 0, 254)


@pytest.fixture(autouse=True)
def plugin_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tests import the plugin's modules by their names, as its scripts do."""
    monkeypatch.syspath_prepend(str(PLUGIN))


def close(one: object, other: tuple[int, ...]) -> bool:
    assert isinstance(one, tuple)
    return all(abs(a - b) < 12 for a, b in zip(one, other, strict=False))


@pytest.mark.parametrize("content_type", FORMATS)
def test_every_type_that_is_offered_becomes_two_copies(content_type: str) -> None:
    kind = FORMATS[content_type][1][0]
    copies = make_copies(picture(kind, (400, 300)), content_type, SMALL)
    assert (copies.width, copies.height) == (400, 300)
    copy, thumb = opened(copies.copy), opened(copies.thumb)
    assert (copy.format, copy.size) == ("WEBP", (200, 150))
    assert (thumb.format, thumb.size) == ("WEBP", (40, 30))


def test_a_small_picture_is_not_blown_up() -> None:
    copies = make_copies(picture("PNG", (30, 20)), "image/png", SMALL)
    assert opened(copies.copy).size == opened(copies.thumb).size == (30, 20)


@pytest.mark.parametrize(
    ("orientation", "size", "corner"),
    [(1, (400, 200), RED), (3, (400, 200), BLUE), (6, (200, 400), BLUE), (8, (200, 400), RED)],
)
def test_a_picture_that_lies_on_its_side_is_turned(
    orientation: int, size: tuple[int, int], corner: tuple[int, ...]
) -> None:
    copies = make_copies(photo(orientation), "image/jpeg", SMALL)
    assert (copies.width, copies.height) == size
    copy = opened(copies.copy).convert("RGB")
    assert copy.size == (size[0] // 2, size[1] // 2)
    assert close(copy.getpixel((5, 5)), corner)
    assert copy.getexif().get(0x0112) is None


@pytest.mark.parametrize("content", [photo(), noted_png()], ids=["jpeg", "png"])
def test_copies_tell_neither_place_nor_maker_nor_comments(content: bytes) -> None:
    content_type = "image/png" if content.startswith(b"\x89PNG") else "image/jpeg"
    assert b"secret" in content
    copies = make_copies(content, content_type, Sizes())
    for copy in (copies.copy, copies.thumb):
        image = opened(copy)
        assert not image.getexif()
        assert not set(image.info) & {"exif", "xmp", "comment", "Author", "Comment"}
        assert b"secret" not in copy
        assert b"EXIF" not in copy[:64]


def test_of_an_animation_the_first_frame_is_taken() -> None:
    copy = opened(make_copies(gif(), "image/gif", SMALL).copy)
    assert getattr(copy, "n_frames", 1) == 1
    assert close(copy.convert("RGB").getpixel((20, 15)), RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "I;16", "CMYK"])
def test_every_kind_of_pixels_is_understood(mode: str) -> None:
    kind, content_type = ("JPEG", "image/jpeg") if mode == "CMYK" else ("PNG", "image/png")
    gray: Any = {"1": 1, "L": 127, "LA": (127, 255), "P": 1, "I;16": 127 * 257}.get(
        mode, (127,) * len(mode)
    )
    content = written(Image.new(mode, (64, 48), gray), kind)
    copy = opened(make_copies(content, content_type, SMALL).copy)
    assert copy.size == (64, 48)
    if mode in {"L", "LA", "RGBA", "I;16"}:
        assert close(copy.getpixel((30, 20)), (127, 127, 127))


def test_what_is_seen_through_stays_so() -> None:
    content = written(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), "PNG")
    copy = opened(make_copies(content, "image/png", SMALL).copy)
    assert copy.mode == "RGBA"
    pixel = copy.getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert pixel[3] == 0


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "image/png"),
        (b"hello, I am a picture", "image/jpeg"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/jpeg"),
        (picture("PNG"), "image/jpeg"),
        (picture("JPEG"), "image/png"),
        (picture("BMP"), "image/gif"),
        (picture("JPEG", (300, 300))[:700], "image/jpeg"),
        (picture("PNG")[:-30], "image/png"),
        (b"GIF89a" + b"\xff" * 50, "image/gif"),
    ],
)
def test_what_is_no_picture_of_its_type_is_refused(content: bytes, content_type: str) -> None:
    with pytest.raises(NotAPicture, match=f"damaged, or no picture of the type {content_type}"):
        make_copies(content, content_type, SMALL)


@pytest.mark.parametrize("size", [(1001, 1000), (10_000, 10_000), (60_000, 60_000)])
def test_too_many_pixels_are_refused_before_one_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(NotAPicture, match="more than 1 million pixels"):
        make_copies(bomb(*size), "image/png", SMALL)


@given(st.binary(max_size=200), st.integers(0, 600), st.sampled_from(sorted(FORMATS)))
@settings(max_examples=150)
def test_damage_is_refused_or_survived_and_never_anything_else(
    noise: bytes, at: int, content_type: str
) -> None:
    good = picture(FORMATS[content_type][1][0])
    damaged = good[:at] + noise + good[at + len(noise) :]
    try:
        copies = make_copies(damaged, content_type, SMALL)
    except NotAPicture:
        return
    assert opened(copies.thumb).format == "WEBP"


def test_without_pillow_the_load_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "photo_images")
    with pytest.raises(ImportError, match=r"pip install '\.\[photos\]'"):
        importlib.import_module("photo_images")
