"""Plugin photos: decodes pictures and makes the two copies of each.

Whatever is wrong with a picture is `NotAPicture`, with a message for its uploader. Blocking:
for threads.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

try:
    from PIL import Image, ImageOps, features
except ImportError as missing:
    raise ImportError(
        "the photos plugins need Pillow: pip install '.[photos]' in the checkout, or pip install pillow",
        name="PIL",
    ) from missing

if not features.check("webp"):
    raise ImportError(
        "the photos plugins need a Pillow that can write WebP: pip install --upgrade pillow"
    )

try:
    import pillow_heif
except ImportError:
    HEIC_TYPES: dict[str, tuple[str, tuple[str, ...]]] = {}
else:
    pillow_heif.register_heif_opener(thumbnails=False)
    HEIC_TYPES = {"image/heic": ("heic", ("HEIF",)), "image/heif": ("heif", ("HEIF",))}
"""Photos of phones, where the extra `heic` is installed: Pillow alone cannot read them."""

Image.preinit()  # the formats below; anything else of Pillow's many stays unloaded

FORMATS: Final = {
    "image/jpeg": ("jpg", ("JPEG", "MPO")),
    "image/png": ("png", ("PNG",)),
    "image/webp": ("webp", ("WEBP",)),
    "image/gif": ("gif", ("GIF",)),
    **HEIC_TYPES,
}
"""Content type -> suffix of its files, and the only decoders of Pillow that may read it."""

COPY_TYPE: Final = "image/webp"
COPY_SUFFIX: Final = "webp"

_PROFILE_BYTES: Final = 64 << 10
"""Largest colour profile that copies keep; those of cameras have a few hundred bytes."""


class NotAPicture(Exception):
    """The bytes are not a picture of their content type, or it is too large. The message says which."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bounds: of what is decoded, in pixels, and of the longer side of the copies, in pixels."""

    most_pixels: int = 50_000_000
    copy_side: int = 2048
    thumb_side: int = 480


@dataclass(frozen=True, slots=True)
class Copies:
    """The size of a picture, turned upright, and its two copies, both WebP."""

    width: int
    height: int
    copy: bytes
    thumb: bytes


def make_copies(content: bytes, content_type: str, sizes: Sizes) -> Copies:
    """Decode a picture and make both copies: upright, first frame only, without EXIF, XMP, comments.

    The size is read from the header before a pixel is decoded; a JPEG is decoded at the smallest
    scale that is enough. Raises `NotAPicture`; `MemoryError` is not the picture's fault and passes.
    """
    try:
        return _make_copies(content, content_type, sizes)
    except (NotAPicture, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many(sizes) from None
    except Exception as error:  # decoders fail in a dozen ways: OSError, SyntaxError, struct.error ...
        raise NotAPicture(f"it is damaged, or no picture of the type {content_type}") from error


def _make_copies(content: bytes, content_type: str, sizes: Sizes) -> Copies:
    _, formats = FORMATS[content_type]
    with Image.open(io.BytesIO(content), formats=formats) as opened:
        width, height = opened.size
        if width * height > sizes.most_pixels:
            raise _too_many(sizes)
        opened.draft("RGB", (sizes.copy_side, sizes.copy_side))
        opened.load()
        turned = _sides_swapped(opened)
        upright = ImageOps.exif_transpose(opened)
    copy = _plain(upright)
    copy.thumbnail((sizes.copy_side, sizes.copy_side), Image.Resampling.LANCZOS)
    thumb = copy.copy()
    thumb.thumbnail((sizes.thumb_side, sizes.thumb_side), Image.Resampling.LANCZOS)
    if turned:
        width, height = height, width
    return Copies(width, height, _webp(copy, 82), _webp(thumb, 76))


def _sides_swapped(image: Image.Image) -> bool:
    """Tell whether the orientation tag swaps width and height (EXIF 2.32, tag 0x0112: 5 to 8)."""
    return image.getexif().get(0x0112, 1) in {5, 6, 7, 8}


def _plain(image: Image.Image) -> Image.Image:
    """Return the pixels as RGB or RGBA with nothing of `info` but a small colour profile."""
    if image.mode.startswith("I"):  # 16 bits of gray: convert() would cut them off, not scale them
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    transparent = image.has_transparency_data
    mode = "RGBA" if transparent else "RGB"
    profile = image.info.get("icc_profile") if image.mode == mode else None
    plain = image.convert(mode) if image.mode != mode else image
    plain.info = {}
    if isinstance(profile, bytes) and len(profile) <= _PROFILE_BYTES:
        plain.info["icc_profile"] = profile
    return plain


def _webp(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    profile = image.info.get("icc_profile", b"")
    image.save(file, "WEBP", quality=quality, method=4, icc_profile=profile, exif=b"", xmp=b"")
    return file.getvalue()


def _too_many(sizes: Sizes) -> NotAPicture:
    return NotAPicture(f"it has more than {sizes.most_pixels // 1_000_000} million pixels")
