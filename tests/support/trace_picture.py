"""Draws the trace of an upload: `python -m tests.support.trace_picture`, which prints an SVG.

A gateway serves the upload, a collector receives its spans, and these are drawn, in both colour schemes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.support.harness import GatewayProcess, put
from tests.support.routing.api import api
from tests.support.routing.scripted import write
from tests.support.traces import SeenSpan, running_collector

WIDTH, LABELS, MARGIN = 960, 330, 24
ROW, TOP = 34, 64
MIN_BAR: Final = 3.0
COLOURS: Final = {"server": "server", "internal": "internal", "client": "client", "consumer": "consumer"}

STYLE: Final = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .small { font-size: 12px; fill: #59636e }
  .page { fill: #ffffff } .line { stroke: #d1d9e0 }
  .server { fill: #0969da } .internal { fill: #6e7781 }
  .client { fill: #bc4c00 } .consumer { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .page { fill: #0d1117 } .line { stroke: #3d444d }
    .server { fill: #4493f8 } .internal { fill: #9198a1 }
    .client { fill: #f0883e } .consumer { fill: #3fb950 }
  }
"""

PLUGINS: Final = (
    """
name: check_tenant
event: APIGW.OnFileUploading
script: |
  async def check_tenant(event, handle):
      await callout("{authority}", "/tenants/7")
""",
    """
name: make_thumbnail
event: APIGW.OnFileUploaded
script: |
  async def make_thumbnail(event, handle):
      await asyncio.sleep(0.008)
      await callout("{authority}", "/thumbnails", "POST", {{"path": event["path"]}})
""",
    """
name: tell_billing
webhook:
  url: http://{authority}/billing
  events: [APIGW.OnFileUploaded]
""",
)


def picture(spans: Sequence[SeenSpan]) -> str:
    """Return spans of one trace as an SVG: each below its parent, by the time at which it began."""
    rows = list(_in_order(spans, _roots(spans), 0))
    first, last = min(span.started for span in spans), max(span.ended for span in spans)
    scale = (WIDTH - LABELS - MARGIN - 70) / (last - first)
    height = TOP + ROW * len(rows) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The trace of one upload: the spans below each other, from left to right in time</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
        *_axis((last - first) / 1e6, scale * 1e6, height),
    ]
    for number, (span, depth) in enumerate(rows):
        y = TOP + ROW * number
        x = LABELS + (span.started - first) * scale
        width = max(MIN_BAR, (span.ended - span.started) * scale)
        parts += [
            f'<text x="{MARGIN + 18 * depth}" y="{y + 16}">{escape(span.name)}</text>',
            f'<rect class="{COLOURS[span.kind]}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}"'
            ' height="16" rx="3"/>',
            f'<text class="small" x="{x + width + 6:.1f}" y="{y + 16}">'
            f"{(span.ended - span.started) / 1e6:.1f} ms</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def _axis(milliseconds: float, scale: float, height: int) -> list[str]:
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 1000) if milliseconds / each <= 8)
    parts = []
    for tick in range(0, int(milliseconds) + 1, step):
        x = LABELS + tick * scale
        parts += [
            f'<line class="line" x1="{x:.1f}" y1="{TOP - 14}" x2="{x:.1f}" y2="{height - MARGIN}"/>',
            f'<text class="small" x="{x:.1f}" y="{TOP - 22}" text-anchor="middle">{tick} ms</text>',
        ]
    return parts


def _roots(spans: Sequence[SeenSpan]) -> list[SeenSpan]:
    known = {span.id for span in spans}
    return [span for span in spans if span.parent not in known]


def _in_order(
    spans: Sequence[SeenSpan], level: Sequence[SeenSpan], depth: int
) -> list[tuple[SeenSpan, int]]:
    found: list[tuple[SeenSpan, int]] = []
    for span in sorted(level, key=lambda each: each.started):
        below = [each for each in spans if each.parent == span.id]
        found += [(span, depth), *_in_order(spans, below, depth + 1)]
    return found


async def _answer(request: web.Request) -> web.Response:
    await asyncio.sleep(0.003 if request.method == "GET" else 0.006)
    return web.json_response({})


async def trace_of_an_upload(folder: Path) -> list[SeenSpan]:
    """Return the spans of one upload: the second, when everything is loaded and connected."""
    os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"
    with running_collector() as collector:
        async with api(_answer) as service:
            texts = [text.format(authority=service.authority) for text in PLUGINS]
            flags = "--otlp", collector.url, "--plugins", str(write(folder / "plugins", *texts))
            with GatewayProcess(folder / "data", flags) as gateway:
                for number in range(1, 4):
                    await put(gateway, "/upload/photo.jpg", os.urandom(50_000))
                    await collector.wait_for("gateway.callout", 3 * number)
                    requests = await collector.wait_for("gateway.request", number)
    return [span for span in collector.spans() if span.trace == requests[-1].trace]


def main() -> None:
    """Print the picture."""
    with tempfile.TemporaryDirectory() as folder:
        spans = asyncio.run(trace_of_an_upload(Path(folder)))
    sys.stdout.write(picture(spans))


if __name__ == "__main__":
    main()
