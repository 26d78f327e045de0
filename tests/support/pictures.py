"""Pictures for tests, generated: valid, malicious and broken ones."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

ORIENTATION = 0x0112
GPS = 0x8825
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">secret-place</x:xmpmeta>'


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48), mode: str = "RGB", **how: Any) -> bytes:
    """A small picture: red above, blue below, so that one sees how it lies."""
    image = Image.new(mode, size, "red")
    ImageDraw.Draw(image).rectangle((0, size[1] // 2, size[0], size[1]), fill="blue")
    return written(image, kind, **how)


def written(image: Image.Image, kind: str, **how: Any) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def photo(orientation: int = 6, size: tuple[int, int] = (400, 200)) -> bytes:
    """A JPEG as a phone makes it: lying on its side, with the place, the maker and a comment in it."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "secret-maker"
    exif.get_ifd(GPS).update({1: "N", 2: (37.0, 33.0, 59.0), 3: "E", 4: (126.0, 58.0, 41.0)})
    return picture("JPEG", size, exif=exif, xmp=XMP, comment=b"secret-comment", quality=95)


def gif(frames: int = 3) -> bytes:
    """An animated GIF whose first frame is red."""
    images = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")[:frames]]
    how: dict[str, Any] = {"save_all": True, "append_images": images[1:], "duration": 50, "loop": 0}
    return written(images[0], "GIF", **how)


def noted_png() -> bytes:
    """A PNG with texts in it, some of them compressed."""
    notes = PngInfo()
    notes.add_text("Author", "secret-author")
    notes.add_text("Comment", "secret-comment", zip=True)
    return picture("PNG", pnginfo=notes)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises that many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def opened(content: bytes) -> Image.Image:
    """A picture, decoded."""
    image = Image.open(io.BytesIO(content))
    image.load()
    return image
