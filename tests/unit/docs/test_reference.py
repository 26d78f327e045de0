"""The reference pages name what the code has: error codes, plugin keys, verbs, metrics, limits."""

from __future__ import annotations

import argparse
import configparser
import importlib
import json
import re
from pathlib import Path
from typing import Final

import pytest

import gateway
from gateway import errors
from gateway.cli import VERBS, serve
from gateway.commit import batched_write, committer, disk
from gateway.commit.objects import writer as object_writer
from gateway.domain import paths
from gateway.domain.api_routes import API_ROUTES, Access
from gateway.domain.event_bodies import delivered_event
from gateway.domain.model import SCHEDULE, Delivery
from gateway.domain.path_template import UploadPathTemplate
from gateway.domain.schedules import Every
from gateway.endpoints import inflight
from gateway.endpoints.admin import events as events_api
from gateway.endpoints.downloads import archive
from gateway.endpoints.downloads import handler as downloads
from gateway.endpoints.notifications import handler as notifications
from gateway.endpoints.routing.proxy import proxy
from gateway.endpoints.routing.validation import request_check
from gateway.events.protocols import STATES, DeliveryRow
from gateway.events.scheduler import tick_event
from gateway.plugins import models, testing
from gateway.plugins.model_types import Strict
from gateway.plugins.schema import SCHEMA_FILE
from gateway.plugins.scripting import callout, executor
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, Services, run_script
from gateway.plugins.scripting.values import Configs
from gateway.plugins.webhooks.models import WebhookKeys, WebhookModel
from gateway.storage.local import incoming
from tests.support import PROJECT
from tests.support.reference_pages import keys, page, rows, section


def test_every_error_code_is_documented_with_its_status() -> None:
    found = rows(section(page("http.md"), "## Errors"))
    assert {row[1].strip("`"): int(row[0]) for row in found} == errors.TABLE
    assert [int(row[0]) for row in found] == sorted(errors.TABLE.values())


def test_codes_that_nothing_raises_are_said_to_be_kept_for_later() -> None:
    sources = [file for file in (PROJECT / "gateway").rglob("*.py") if file.name != "errors.py"]
    code = "".join(file.read_text() for file in sources)
    unused = {name for name in errors.TABLE if f'"{name}"' not in code}
    kept = {row[1].strip("`") for row in rows(page("http.md")) if row[2:] and row[2].startswith("kept")}
    assert unused <= kept


def test_the_statuses_that_carry_retry_after_are_documented() -> None:
    statuses = sorted({errors.TABLE[code] for code in errors.RETRY_AFTER_SECONDS})
    assert " and ".join(map(str, statuses)) + " carry `Retry-After`." in page("http.md")
    unsaid = {code for code, status in errors.TABLE.items() if status in statuses}
    assert unsaid == set(errors.RETRY_AFTER_SECONDS)


def test_every_endpoint_of_the_gateway_is_documented_with_who_may_call_it() -> None:
    documented = re.findall(r"^\| `([A-Z]+) (/-/\S+)` \| (.*) \|$", page("http.md"), re.MULTILINE)
    table = {
        (route.method, route.pattern.replace("{", "<").replace("}", ">")): route.access
        for route in API_ROUTES
    }
    assert {(method, path) for method, path, _ in documented} == set(table)
    open_to_all = {(method, path) for method, path, text in documented if text.endswith("Open to all")}
    assert open_to_all == {row for row, access in table.items() if access is Access.PUBLIC}


def test_the_templates_of_the_page_give_the_paths_it_says() -> None:
    for row in rows(section(page("http.md"), "## Paths")):
        template, *stored, target, path = (cell.strip("`") for cell in row)
        match = UploadPathTemplate.parse(template, *stored).match(target)
        assert match is not None
        pattern = re.escape(path).replace(re.escape("<a new UUID>"), "[0-9a-f-]{36}")
        assert re.fullmatch(pattern, match.path), match.path
    assert f"/{paths.STATE_FOLDER}`" in page("http.md")


MODELS: Final = [
    model for model in (*vars(models).values(), WebhookModel, WebhookKeys)
    if isinstance(model, type) and issubclass(model, Strict) and model is not Strict
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_a_plugin_is_documented_with_its_default(model: type[Strict]) -> None:
    table = section(page("plugin-yaml.md"), f"<!-- keys of {model.__name__} -->")
    assert keys(table) == list(model.model_fields)
    for row in rows(table):
        field = model.model_fields[row[0].strip("`")]
        assert (row[1] == "needed") == field.is_required(), row
        if isinstance(field.default, str | int | float):
            assert row[1] == f"`{json.dumps(field.default).strip(chr(34))}`"


def test_the_timeouts_and_the_keys_of_one_event_are_documented() -> None:
    text = page("plugin-yaml.md")
    short = {event: event.removeprefix("APIGW.On").removeprefix("File") for event in models.EVENTS}
    for event, seconds in models.DEFAULT_TIMEOUT.items():
        assert f"{seconds:.0f} ({short[event]})" in text
        assert f"`{event}`" in text
    for event, runs in models.DEFAULT_CONCURRENCY.items():
        assert f"{runs} ({short[event]})" in text
    for key, homes in models.APPLIES.items():
        *rest, last = [short[event] for event in homes]
        said = f"{', '.join(rest)} and {last}" if rest else last
        assert re.search(rf"^\| `{key}` \| .* \| {said} only", text, re.MULTILINE), key


def test_the_page_leads_to_the_schema() -> None:
    assert f"({Path('../..') / SCHEMA_FILE.relative_to(PROJECT)})" in page("plugin-yaml.md")


def test_every_name_of_the_script_namespace_is_documented() -> None:
    services = Services()
    context = ScriptContext("a", "", PluginContext(services, Configs({}), {}))
    there_are = {name for name in run_script(compile("", "", "exec"), context) if name[0] != "_"}
    text = page("script-names.md").partition("\n## ")[0]
    said = {name for row in rows(text) for name in re.findall(r"`(\w+)`", row[0])}
    assert said == there_are


def test_every_key_of_a_tick_is_documented() -> None:
    tick = tick_event("nightly", Every(60), 120, 0.0)
    delivery = Delivery(0, tick.id, None, tick.type, "nightly", 1, tick.body)
    there_are = delivered_event(delivery, "127.0.0.1", 8080, Path("/"))
    assert set(keys(section(page("events.md"), f"## {SCHEDULE}"))) == set(there_are)


def test_every_verb_has_a_section() -> None:
    headings = re.findall(r"^## (.+)$", page("command-line.md"), re.MULTILINE)
    assert sorted(headings) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_a_verb_is_documented(verb: str) -> None:
    module = importlib.import_module(f"gateway.cli.{verb}")
    parser = argparse.ArgumentParser(add_help=False)
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    text = section(page("command-line.md"), f"## {verb}")
    flags = {flag for action in parser._actions for flag in action.option_strings}
    words = {str(word) for a in parser._actions if not a.option_strings for word in a.choices or ()}
    assert {key.split()[0] for key in keys(text)} == flags | words


def test_the_states_and_the_json_keys_of_events_are_documented() -> None:
    text = section(page("command-line.md"), "## events")
    look = (PROJECT / "docs/how-to/inspect-events.md").read_text()
    assert sorted(keys(section(look, "## List"))) == sorted(STATES)
    assert ", ".join(f"`{name}`" for name in DeliveryRow.__dataclass_fields__) in text
    assert all(f"`{state}`" in text for state in STATES)


def test_the_architecture_names_every_package_and_every_dependency() -> None:
    text = (PROJECT / "docs/architecture.md").read_text()
    packages = {path.parent.name for path in (PROJECT / "gateway").glob("*/__init__.py")}
    named = re.findall(r"^\| `(\w+)` \|", section(text, "## Packages"), re.MULTILINE)
    assert set(named) == packages | {"errors"}
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    needed = re.findall(r"^([\w-]+)", setup["options"]["install_requires"], re.MULTILINE)
    said = re.findall(r"^\| ([\w-]+) \| \w", section(text, "## Dependencies"), re.MULTILINE)
    assert sorted(said) == sorted([*needed, "package"])


def test_the_changes_tell_of_this_version() -> None:
    headings = re.findall(r"^## \[?([\w.]+)", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert gateway.__version__ in headings


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("how-to/handle-full-disks-and-limits.md", f"{inflight.MAX_UPLOADS:,} uploads"),
        ("how-to/handle-full-disks-and-limits.md", f"{serve.MAX_OPEN_FILES:,}"),
        ("how-to/handle-full-disks-and-limits.md", f"| downloads | {downloads.MAX_OPEN_FILES:,} |"),
        ("how-to/handle-full-disks-and-limits.md", f"64 KiB | {object_writer.MAX_STREAMS:,} |"),
        ("how-to/handle-full-disks-and-limits.md", f"upstreams | {proxy.MAX_ROUTE_REQUESTS:,} |"),
        ("how-to/handle-full-disks-and-limits.md", f"together, {proxy.MAX_CONNECTIONS:,}, each"),
        ("how-to/handle-full-disks-and-limits.md", f"routes | {proxy.MAX_BUFFERED_BYTES >> 20} MiB |"),
        ("how-to/handle-full-disks-and-limits.md", f"| archives | {archive.MAX_ARCHIVES}, "),
        ("how-to/handle-full-disks-and-limits.md", f"| {request_check.MAX_BUFFERED_BYTES >> 20} MiB |"),
        ("how-to/handle-full-disks-and-limits.md", f"show | {notifications.MAX_CONCURRENT} |"),
        ("how-to/handle-full-disks-and-limits.md", f"genuine | {notifications.MAX_UNKNOWN} |"),
        ("how-to/handle-full-disks-and-limits.md", f"{disk.MAX_RESERVED_BYTES >> 30} GiB of each"),
        ("how-to/test-plugins.md", f"given up after {testing.MAX_TEST_SECONDS:.0f} s"),
        ("architecture.md", f"up to {committer.MAX_BATCH},"),
        ("architecture.md", f"up to {incoming.MAX_IN_MEMORY_BYTES >> 10} KiB"),
        ("architecture.md", f"from {committer.MIN_SYNC_APART_BYTES >> 20} MiB on"),
        ("architecture.md", f"at most {batched_write.MAX_BATCH_BYTES >> 20} MiB"),
        ("reference/script-names.md", f"over {callout.MAX_RESPONSE_BYTES >> 20} MiB"),
        ("reference/script-names.md", f"more than {executor.REPORT_DELAYS[0]} s"),
        ("reference/http.md", f"over {paths.MAX_SEGMENT_BYTES} bytes"),
        ("reference/http.md", f"more than {paths.MAX_SEGMENTS} segments"),
        ("reference/http.md", f"over {paths.MAX_PATH_BYTES} bytes"),
        ("reference/http.md", f"at most {events_api.MAX_PAGE_ROWS}"),
    ],
)
def test_limits_are_told_as_they_are(place: str, said: str) -> None:
    assert said in " ".join((PROJECT / "docs" / place).read_text().split())
