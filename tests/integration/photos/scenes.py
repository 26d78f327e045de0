"""Landscapes for the pictures in docs/: drawn, so that nobody's photo and nobody's licence is needed."""

from __future__ import annotations

import io
import math
import random
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

NAMES: Final = ["First light", "Terraces", "Heron pond", "Market street", "Lanterns", "The long table"]
_SKIES: Final[list[tuple[Colour, Colour]]] = [
    ((250, 205, 150), (120, 150, 190)),
    ((210, 228, 236), (92, 140, 178)),
    ((238, 224, 206), (150, 176, 184)),
    ((246, 190, 164), (104, 92, 138)),
    ((70, 66, 112), (18, 22, 48)),
    ((252, 226, 172), (206, 128, 92)),
]
_GROUNDS: Final[list[Colour]] = [
    (52, 74, 70), (74, 118, 66), (60, 96, 104), (92, 60, 72), (22, 26, 46), (104, 70, 44),
]  # fmt: skip
_SIZES: Final = [(1600, 1067), (1200, 1500), (1600, 900), (1500, 1500), (1067, 1600), (1800, 1000)]


def scene(number: int) -> bytes:
    """A landscape as a JPEG; the same number is always the same one."""
    chance = random.Random(number)
    width, height = _SIZES[number]
    low, high = _SKIES[number]
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for line in range(height):
        draw.line([(0, line), (width, line)], fill=_between(high, low, line / height))
    x, y, radius = width * chance.uniform(0.2, 0.8), height * 0.33, min(width, height) * 0.07
    draw.ellipse(
        (x - radius, y - radius, x + radius, y + radius), fill=_between(low, (255, 250, 235), 0.75)
    )
    for layer in range(5):
        share = (layer + 1) / 5
        _ridge(draw, (width, height), chance, share, _between(low, _GROUNDS[number], share))
    image = image.filter(ImageFilter.GaussianBlur(0.8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _ridge(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], chance: random.Random, share: float, colour: Colour
) -> None:
    width, height = size
    base = height * (0.42 + 0.42 * share)
    waves = [
        (chance.uniform(0.8, 3.5) * (n + 1), chance.uniform(0, 7), height * 0.07 / (n + 1))
        for n in range(4)
    ]
    points = [
        (along, base + sum(tall * math.sin(along / width * many + start) for many, start, tall in waves))
        for along in range(0, width + 8, 8)
    ]
    draw.polygon([(0, height), *points, (width, height)], fill=colour)


def _between(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
