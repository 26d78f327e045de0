"""OpenAPI documents of other projects, served by a gateway: what fits them passes, nothing breaks it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.errors import SchemathesisError
from schemathesis.core.result import Ok

from gateway.endpoints.routing.specification.places import Place
from gateway.endpoints.routing.specification.source import read_source
from gateway.plugins import PluginErrors
from tests.conftest import StartGateway
from tests.support.routing.api import api
from tests.support.routing.openapi import plugin_text
from tests.support.routing.public_documents import DOCUMENTS, PublicDocument, public_document
from tests.support.routing.scripted import load, write

MAX_PATHS: Final = 10
"""Paths of a document that get requests, in equal distances."""

EXAMPLES: Final = 3
"""Requests of each operation and kind."""


def read(file: Path) -> dict[str, Any]:
    """Return a document with the types of JSON: YAML 1.1 would make dates of its examples."""
    return dict(read_source(file).data)


def plugin_of(document: PublicDocument, upstream: str = "up") -> str:
    skip = ", skip: [" + ", ".join(f"'{name}'" for name in document.skip) + "]" if document.skip else ""
    return plugin_text(document.name, upstream=upstream, keys=f", path: /api{skip}")


def some_paths(document: dict[str, Any], skip: tuple[str, ...]) -> dict[str, Any]:
    """Return the document with some of its paths: schemathesis takes minutes for a thousand."""
    paths = {path: item for path, item in document["paths"].items() if path not in skip}
    step = max(len(paths) // MAX_PATHS, 1)
    return {**document, "paths": {path: paths[path] for path in list(paths)[::step]}}


def ask_all(url: str, document: dict[str, Any]) -> dict[GenerationMode, set[int]]:
    """Send generated requests for all operations; return the statuses by kind of request."""
    statuses: dict[GenerationMode, set[int]] = {mode: set() for mode in GenerationMode}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        if not isinstance(result, Ok):
            continue  # schemathesis cannot read it
        for mode in GenerationMode:
            # Not every operation has a request that breaks a rule.
            with contextlib.suppress(SchemathesisError, Unsatisfiable):
                statuses[mode] |= ask(url, result.ok(), mode)
    return statuses


def ask(url: str, operation: Any, mode: GenerationMode) -> set[int]:
    """Send generated requests of one operation and kind; return the statuses."""
    statuses: set[int] = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: schemathesis.Case[Any]) -> None:
        response = case.call(base_url=url)
        statuses.add(response.status_code)
        assert response.status_code < 500, f"{case.method} {case.path}: {response.text}"

    call()
    return statuses


@pytest.mark.slow
@pytest.mark.timeout(300)  # the large document is read by the gateway and by schemathesis
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_generated_requests_never_break_the_gateway(
    name: str, start_gateway: StartGateway, tmp_path: Path
) -> None:
    document = DOCUMENTS[name]
    file = await asyncio.to_thread(public_document, document)

    async def respond(_: web.Request) -> web.Response:
        return web.json_response({})

    async with api(respond) as upstream:
        folder = write(tmp_path / "plugins", plugin_of(document, upstream.authority))
        shutil.copy(file, folder)
        gateway = await start_gateway(plugins=[str(folder)], auth="none")
        [made] = gateway.resources.plugins.current.plugins["routing"]
        assert f"{document.operations} routes of " in made.describe()
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        described = await asyncio.to_thread(lambda: some_paths(read(file), document.skip))
        statuses = await asyncio.to_thread(ask_all, f"{gateway.url}/api", described)
        assert 200 in statuses[GenerationMode.POSITIVE]
        assert 400 in statuses[GenerationMode.NEGATIVE]
        assert upstream.asked


def edges(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield the places and values of the parameters and schemas of a document, in its order."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for step, inner in members:
        yield (*place, step), inner
        if isinstance(inner, dict | list) and step not in {"example", "examples", "x-codeSamples"}:
            yield from edges(inner, (*place, step))


BREAKS: Final = {
    "reference": (r"\$ref", "", r"(['\"]?)#/", r"\1other.yaml#/", "references lead into the same file"),
    "type": (r"type", "parameters", r"(string|integer)", r"wrong", "invalid JSON Schema"),
    "place": (r"in", "parameters", r"(query|path)", r"body", "a parameter needs a `name`, and `in`"),
}
"""What is broken once: a key, what is above it, the old and the new text in its line, the fault."""


NOT_READ: Final = {"schemas", "headers", "links", "callbacks"}
"""What is not read, or not by every document."""

SKIPPED: Final = {("galaxy", "type"), ("galaxy", "place"), ("github", "reference"), ("github", "place")}
"""One has its parameters elsewhere; the large one takes seconds each time, and is broken in one way."""

BROKEN: Final = sorted({(name, kind) for name in DOCUMENTS for kind in BREAKS} - SKIPPED)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), BROKEN)
def test_a_fault_of_a_public_document_has_its_line(tmp_path: Path, name: str, kind: str) -> None:
    document, (key, above, old, new, fault) = DOCUMENTS[name], BREAKS[kind]
    file = public_document(document)
    source, lines = read_source(file), file.read_text().splitlines()
    for place, value in edges(source.data["paths"], ("paths",)):
        line = source.line(place)
        row = lines[line - 1]
        fits = re.fullmatch(key, str(place[-1])) and (not above or above in place)
        if fits and isinstance(value, str) and re.search(old, row) and NOT_READ.isdisjoint(place):
            break
    else:
        raise AssertionError("the document has nothing of this kind")
    lines[line - 1] = re.sub(rf"(?<={key}).*", lambda match: re.sub(old, new, match[0], count=1), row)
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / document.name).write_text("\n".join(lines))
    with pytest.raises(PluginErrors) as caught:
        load(folder, plugin_of(document))
    [error, *_] = [row for row in str(caught.value).splitlines() if f":{line}: " in row]
    assert error.startswith(f"{folder / document.name}:{line}: ")
    assert fault in error
