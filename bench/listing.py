"""Loads of lists: a folder of many files, page by page or at once."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import urlencode

from bench.contestants import Contestant
from bench.load import LIMIT
from bench.samples import BenchError, Sample

PAGE = 1000
WARM_UP_FILES = 2000


@dataclass(frozen=True)
class Pages:
    """A folder of `count` files, read in pages of 1,000. Each turn has files of its own."""

    count: int
    large = True

    def run(self, contestant: Contestant, turn: str) -> Sample:
        _make_files(contestant, turn, self.count)
        started = time.perf_counter()
        names = self._names(contestant)
        seconds = time.perf_counter() - started
        if names != self.count:
            raise BenchError(f"{names} files were listed, {self.count} are there")
        return Sample(seconds, self.count)

    def _names(self, contestant: Contestant) -> int:
        names, cursor = 0, None
        while True:
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            page = _ask(contestant, f"{contestant.prefix}?{urlencode(query)}")
            names += len(page["entries"])
            cursor = page["next"]
            if cursor is None:
                return names

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        """Nothing more is to be checked: every file was counted."""

    def shorter(self) -> Self:
        return replace(self, count=WARM_UP_FILES)


@dataclass(frozen=True)
class WholeList(Pages):
    """The same folder in one response."""

    def _names(self, contestant: Contestant) -> int:
        return len(_ask(contestant, contestant.prefix))


def _make_files(contestant: Contestant, turn: str, count: int) -> None:
    for number in range(count):
        (contestant.landed / f"{turn}{number:06}.txt").touch()


def _ask(contestant: Contestant, target: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=LIMIT)
    connection.request("GET", target)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status != 200:
        raise BenchError(f"GET was answered {response.status}: {text[-300:]!r}")
    return json.loads(text)
