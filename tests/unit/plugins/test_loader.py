"""Tests of gateway.plugins: folders of YAML become one set, or say what is wrong and where."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED, UPLOADING, RetryPolicy
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.errors import ConfigError
from gateway.plugins import KINDS, Handler, PluginErrors, Plugins
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.scripting.trace import plugin_traceback
from gateway.plugins.scripting.values import Event
from tests.support import PROJECT, TESTS

GOLDEN = TESTS / "golden" / "plugins"
SHIPPED = PROJECT / "plugins"
EVERY_KIND = (*KINDS, routing_kind("/upload/{filepath}"))
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    made = Plugins([tmp_path], Services())
    yield made
    made.close()


def handler_text(name: str, body: str = "pass", event: str = UPLOADED, more: str = "") -> str:
    script = textwrap.indent(textwrap.dedent(body), "      ")
    return (
        f"name: {name}\nevent: {event}\n{more}script: |\n  async def {name}(event, handle):\n{script}\n"
    )


async def run(handler: Handler) -> Handle:
    handle = Handle()
    await handler.function(Event({}), handle)
    return handle


def faults(plugins: Plugins) -> list[str]:
    with pytest.raises(PluginErrors) as caught:
        plugins.load()
    root = str(plugins._folders[0]) + "/"
    return [str(fault).replace(root, "") for fault in caught.value.errors]


def test_the_published_samples_load_unchanged() -> None:
    plugins = Plugins([GOLDEN], Services(), EVERY_KIND)
    now = plugins.load()
    assert [one.name for one in now.handlers[UPLOADING]] == ["fileUploadingEventHandler"]
    assert [one.name for one in now.handlers[UPLOADED]] == ["fileUploadedEventHandler"]


def test_the_shipped_plugins_load_without_any_configuration() -> None:
    described = Plugins([SHIPPED], Services(), EVERY_KIND)
    described.load()
    lines = described.describe()
    assert any("tokenAuth" in line and "replaces the default authorization" in line for line in lines)
    assert any("accountFolder" in line and "keeps the default authorization" in line for line in lines)


def test_documents_lists_and_folders_are_all_read_and_hidden_ones_are_not(
    plugins: Plugins, write: Write
) -> None:
    write("b/two.yml", handler_text("two") + "---\n" + handler_text("one"))
    write("list.yaml", "- name: c1\n  config: {}\n- name: c2\n  config: {}\n")
    write("empty.yaml", "# nothing\n---\n")
    write(".hidden/x.yaml", "broken: [")
    write("note.txt", "broken: [")
    now = plugins.load()
    assert [one.name for one in now.handlers[UPLOADED]] == ["one", "two"]
    assert now.configs.names == ["c1", "c2"]
    assert now.number == 1


def test_a_loop_of_symbolic_links_is_followed_once(
    plugins: Plugins, write: Write, tmp_path: Path
) -> None:
    write("a/one.yaml", handler_text("one"))
    os.symlink(tmp_path, tmp_path / "a" / "again")
    assert len(plugins.load().handlers[UPLOADED]) == 1


def test_defaults_depend_on_the_event(plugins: Plugins, write: Write) -> None:
    write("a.yaml", handler_text("one"))
    write("b.yaml", handler_text("two", event=UPLOADING, more="authorization: keep\non_error: allow\n"))
    write("c.yaml", handler_text("six", more="timeout: 5m\nconcurrency: 9\nretry: {attempts: 2}\n"))
    one, six = plugins.load().handlers[UPLOADED][0], plugins.current.handler(UPLOADED, "six")
    two = plugins.current.handlers[UPLOADING][0]
    assert (one.timeout, one.concurrency, one.retry) == (3600.0, 4, RetryPolicy())
    assert (two.timeout, two.on_error, two.keeps_authorization) == (10.0, "allow", True)
    assert six is not None
    assert (six.timeout, six.spec.concurrency, six.spec.retry.attempts) == (300.0, 9, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a\nevent: x\nscript: a\n", "x.yaml:2: `event` should be 'APIGW.OnFileUploading'"),
        ("name: a\nevnt: x\n", "x.yaml:1: no key tells which kind of plugin this is"),
        (handler_text("a") + "tiemout: 5\n", "x.yaml:6: unknown key `tiemout`: did you mean `timeout`?"),
        (handler_text("a", more="timeout: '5'\n"), "x.yaml:3: `timeout` should be a valid number"),
        (handler_text("a", more="timeout: 5 days\n"), "x.yaml:3: `timeout` must be a time"),
        (handler_text("a", more="timeout: .inf\n"), "x.yaml:3: `timeout` should be"),
        (handler_text("a", more="timeout: true\n"), "x.yaml:3: `timeout` should be a valid number"),
        (handler_text("a", more="concurrency: 0\n"), "x.yaml:3: `concurrency` should be greater"),
        (
            handler_text("a", more="on_error: deny\n"),
            "x.yaml:3: `on_error` applies to APIGW.OnFileUploading",
        ),
        (handler_text("a", event=UPLOADING, more="retry: {}\n"), "x.yaml:3: `retry` applies to"),
        (handler_text("a", more="retry:\n  attemps: 3\n"), "x.yaml:4: unknown key `retry.attemps`"),
        (handler_text("a-b"), "x.yaml:1: `name` must be a name that a Python function can have"),
        (f"event: {UPLOADED}\nscript: a\n", "x.yaml:1: the key `name` is missing"),
        (
            handler_text("a").replace("def a", "def b"),
            "x.yaml:3: the script has no `async def a(event, handle)`",
        ),
        (handler_text("a").replace("async ", ""), "x.yaml:4: `a` is not asynchronous"),
        (handler_text("a").replace(", handle", ""), "x.yaml:4: `a` must take two arguments"),
        (handler_text("a", "x = = 1"), "x.yaml:5: syntax error in the script: invalid syntax"),
        (
            handler_text("a") + "  5 / 0\n",
            "x.yaml:6: the script's top-level code raised ZeroDivisionError",
        ),
        (
            handler_text("a") + "  raise SystemExit\n",
            "x.yaml:6: the script's top-level code raised SystemExit",
        ),
        ("name: a\nname: b\nconfig: {}\n", "x.yaml:2: the key `name` stands here twice"),
        (
            "name: a\nconfig: {x: !vault abc}\n",
            "x.yaml:2: this version does not know the YAML tag !vault",
        ),
        (
            "name: a\nconfig: {x: '${env:NOT_SET_1}'}\n",
            "x.yaml:2: the environment variable NOT_SET_1 is not",
        ),
        ("name: a\nconfig:\n  x:\n  - '${file:none}'\n", "x.yaml:4: the file none cannot be read"),
        ("name: a\nconfig: {x: '${vault:y}'}\n", "x.yaml:2: there is no ${vault:}"),
        ("name: a\nconfig: 5\n", "x.yaml:2: `config` should be a valid dictionary"),
        ("a: [\n", "x.yaml:2: this is not YAML"),
        ("- 5\n", "x.yaml:1: a plugin is a mapping"),
        ("a: &a [*a]\nname: *b\n", "x.yaml:2: this is not YAML"),
    ],
)
def test_a_fault_is_told_with_file_line_and_what_to_do(
    plugins: Plugins, write: Write, text: str, complaint: str
) -> None:
    write("x.yaml", text)
    told = faults(plugins)
    assert len(told) == 1
    assert told[0].startswith(complaint)


def test_every_faulty_file_is_told_one_line_each(plugins: Plugins, write: Write) -> None:
    write("a.yaml", "name: [\n")
    write("b.yaml", handler_text("b", "x = = 1"))
    write("c.yaml", "name: c\nconfig: {a: '${env:NOT_SET_1}'}\n")
    write("d.yaml", handler_text("d", more="timeout: -1\nconcurrency: x\n"))
    assert [line.split(":")[0] for line in faults(plugins)] == [
        "a.yaml",
        "b.yaml",
        "c.yaml",
        "d.yaml",
        "d.yaml",
    ]


def test_two_plugins_of_a_kind_with_one_name_are_a_fault(plugins: Plugins, write: Write) -> None:
    write("a.yaml", handler_text("same"))
    write("b.yaml", "# first\n" + handler_text("same"))
    write("c.yaml", "name: same\nconfig: {}\n")
    (told,) = faults(plugins)
    assert told.startswith("b.yaml:2: there is another event handler named 'same' at ")
    assert told.endswith("a.yaml:1: rename one")


def test_no_message_quotes_a_value_of_a_config(
    plugins: Plugins, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_1", "hunter22")
    write("a.yaml", "name: [hunter22]\nconfig: hunter22\n")
    write("b.yaml", "name: b\nconfig: {a: 'hunter22${file:none}'}\n")
    write("c.yaml", "name: c\nconfig: {a: '${env:SECRET_1}'}\n")
    assert "hunter22" not in "".join(faults(plugins))
    assert "hunter22" not in repr(plugins.current)


def test_a_folder_that_does_not_exist_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none: this plugins folder does not exist"):
        Plugins([tmp_path / "none"], Services()).load()


async def test_references_in_configs_are_resolved_beside_the_file(
    plugins: Plugins, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD_1", "w")
    write("sub/key.txt", "k\n")
    write("sub/a.yaml", "name: a\nconfig: {x: 'pre-${env:WORD_1}', y: ['${file:key.txt}'], z: 5}\n")
    assert plugins.load().configs.get("a") == {"x": "pre-w", "y": ["k"], "z": 5}


@pytest.mark.parametrize(("style", "line"), [("|", 6), ("|-", 6), ("|2", 6)])
async def test_a_traceback_shows_the_line_of_the_yaml_file(
    plugins: Plugins, write: Write, style: str, line: int
) -> None:
    path = write("x.yaml", handler_text("a", "x = 1\nx.missing(  )").replace("|", style))
    handler = plugins.load().handlers[UPLOADED][0]
    with pytest.raises(AttributeError) as caught:
        await run(handler)
    path.write_text("# another line\n" + path.read_text() + "broken: key\n")
    with pytest.raises(PluginErrors):
        await plugins.reload()
    # What is shown is what was loaded, not what is on the disk now.
    text = plugin_traceback(caught.value)
    assert f'File "{path}", line {line}, in a\n    x.missing(  )\n    ^^^^^^^^^\n' in text
    assert text.count("File ") == 1


async def test_a_quoted_script_tells_its_first_line(plugins: Plugins, write: Write) -> None:
    write("x.yaml", f'name: a\nevent: {UPLOADED}\nscript: "async def a(event, handle): 1/0"\n')
    handler = plugins.load().handlers[UPLOADED][0]
    with pytest.raises(ZeroDivisionError) as caught:
        await run(handler)
    assert "x.yaml" in plugin_traceback(caught.value)
    assert "line 3, in a" in plugin_traceback(caught.value)


async def test_modules_beside_a_plugin_can_be_imported_and_are_taken_anew_on_reload(
    plugins: Plugins, write: Write
) -> None:
    write(
        "sub/x.yaml", handler_text("a", "import beside_1\nreturn await handle.terminate(beside_1.CODE)")
    )
    write("sub/beside_1.py", "CODE = 201\n")
    handle = await run(plugins.load().handlers[UPLOADED][0])
    assert handle.verdict is not None
    assert handle.verdict.code == 201
    write("sub/beside_1.py", "CODE = 202\n")
    handle = await run((await plugins.reload()).handlers[UPLOADED][0])
    assert handle.verdict is not None
    assert handle.verdict.code == 202
    assert not (Path(sys.modules["beside_1"].__file__ or "").parent / "__pycache__").exists()


async def test_a_reload_with_a_fault_keeps_the_old_generation_and_its_modules(
    plugins: Plugins, write: Write
) -> None:
    path = write("x.yaml", "name: a\nconfig: {}\n")
    write("beside_2.py", "CODE = 1\n")
    write("h.yaml", handler_text("h") + "  import beside_2\n")
    before = plugins.load()
    module = sys.modules["beside_2"]
    path.write_text("name: a\nconfig: 5\n")
    with pytest.raises(PluginErrors):
        await plugins.reload()
    assert plugins.current is before
    assert sys.modules["beside_2"] is module
    path.write_text("name: b\nconfig: {}\n")
    assert (await plugins.reload()).configs.names == ["b"]
    assert (before.configs.names, plugins.current.number) == (["a"], 2)


async def test_a_reload_whose_script_never_ends_gives_up(
    plugins: Plugins, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.loader.RELOAD_TIMEOUT", 0.1)
    monkeypatch.setattr("gateway.plugins.scripting.executor.REACTION_TIMEOUT", 0.1)
    before = plugins.load()
    write("x.yaml", handler_text("a") + "  while True: pass\n")
    with pytest.raises(ConfigError, match="does not end"):
        await plugins.reload()
    assert plugins.current is before


async def test_reloads_at_the_same_time_are_made_one_after_the_other(
    plugins: Plugins, write: Write
) -> None:
    write("x.yaml", handler_text("a"))
    made = await asyncio.gather(plugins.reload(), plugins.reload())
    assert sorted(one.number for one in made) == [1, 2]


async def test_the_state_of_a_plugin_outlives_a_reload(plugins: Plugins, write: Write) -> None:
    body = "state['n'] = state.get('n', 0) + 1\nawait handle.terminate(200, {'n': state['n']})"
    write("x.yaml", handler_text("a", body))
    write("y.yaml", handler_text("b", body))
    await run(plugins.load().handlers[UPLOADED][0])
    handle = await run((await plugins.reload()).handlers[UPLOADED][0])
    assert handle.verdict is not None
    assert handle.verdict.output == {"n": 2}


async def test_scripts_find_the_names_that_are_promised(
    plugins: Plugins, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    body = """
    names = [MU, HTTPError, GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS, get_service_config,
             json, time, asyncio, aiohttp, aiofiles, logger, state, files, callout]
    print("printed", 5, sep="-")
    config = await get_service_config("c", mu_conversion=True)
    await handle.terminate(200, [config.k, PUT, logger.name])
    """
    write("x.yaml", handler_text("a", body))
    write("c.yaml", "name: c\nconfig: {k: v}\n")
    with caplog.at_level(logging.INFO, "gateway.plugin.a"):
        handle = await run(plugins.load().handlers[UPLOADED][0])
    assert handle.verdict is not None
    assert handle.verdict.output == ["v", "PUT", "gateway.plugin.a"]
    assert [record.getMessage() for record in caplog.records] == ["printed-5"]


async def test_aiobotocore_has_get_session_for_scripts_that_speak_of_it(
    plugins: Plugins, write: Write
) -> None:
    library = importlib.import_module("aiobotocore")
    library.__dict__.pop("get_session", None)
    write("x.yaml", handler_text("a", "import aiobotocore\nreturn aiobotocore.get_session()"))
    handler = plugins.load().handlers[UPLOADED][0]
    assert type(await handler.function(Event({}), Handle())).__name__ == "AioSession"
