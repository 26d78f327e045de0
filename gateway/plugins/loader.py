"""Loads folders of YAML plugins as one set, swapped in as a whole.

Any error keeps the set in force, and all errors are reported at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, TypeVarTuple

from gateway.domain.model import SCHEDULE
from gateway.domain.schedules import Schedule
from gateway.errors import ConfigError
from gateway.plugins.handler import Handler
from gateway.plugins.kinds import HANDLER, Kind, ParsedPlugin, Plugin, parse
from gateway.plugins.models import EVENTS, ConfigModel
from gateway.plugins.own_kinds import KINDS
from gateway.plugins.scripting.calls import ScriptStopped
from gateway.plugins.scripting.compile import PluginModules, show_lines
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.namespace import PluginContext, Services
from gateway.plugins.scripting.values import Configs
from gateway.plugins.secrets import LoadKeys, PluginSecrets, References, SecretKeys
from gateway.plugins.webhooks.kind import WEBHOOK, Webhook
from gateway.plugins.yaml_documents import Document, PluginErrors, find_files, read_file
from gateway.telemetry.redaction import Mask

RELOAD_TIMEOUT: Final = 120.0
"""Seconds that a reload may take: a script's top-level code may never end."""

NO_FILES: Final = "this plugins folder has no plugin: its files end with .yaml or .yml"

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


_NONE: Final[Mapping[str, tuple[Handler, ...]]] = MappingProxyType(dict.fromkeys(EVENTS, ()))


@dataclass(frozen=True, slots=True)
class PluginSet:
    """All plugins of one load. Handlers of each event are in name order; `empty_folders` have no file.

    `shadows` are those whose decisions do not count; `handlers` does not have them.

    By the name of their kind, `plugins` holds those of every kind that makes any, in name order, and
    `combined` what a kind made of all of its plugins.
    """

    number: int
    handlers: Mapping[str, tuple[Handler, ...]]
    configs: Configs
    files: tuple[Path, ...] = ()
    plugins: Mapping[str, tuple[Plugin, ...]] = field(default_factory=dict, repr=False)
    combined: Mapping[str, object] = field(default_factory=dict, repr=False)
    empty_folders: tuple[Path, ...] = ()
    shadows: Mapping[str, tuple[Handler, ...]] = field(default_factory=lambda: _NONE)

    @property
    def all_handlers(self) -> list[Handler]:
        """The handlers of all events, then their shadows, in the order of `EVENTS`."""
        return [h for event in EVENTS for h in (*self.handlers[event], *self.shadows[event])]

    @property
    def schedules(self) -> dict[str, Schedule]:
        """The schedule of each `Schedule` handler, by its name."""
        handlers = self.handlers[SCHEDULE]
        return {handler.name: handler.schedule for handler in handlers if handler.schedule is not None}

    def handler(self, event: str, name: str) -> Handler | None:
        """Return a handler by event and name."""
        handlers = self.handlers.get(event, ())
        return next((handler for handler in handlers if handler.name == name), None)


_NO_PLUGINS: Final = PluginSet(0, _NONE, Configs({}))


class Plugins:
    """The plugins of some folders.

    `current` is the newest set that loaded without an error: read it once, two reads may give two sets.
    `mask` takes the secrets of all configs, also of former sets, out of a text. `make_keys` is
    called at every load. `missing`, where it is given, takes errors of values that only a deployment
    has; the plugins are loaded without them.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        services: Services,
        kinds: Sequence[Kind] = KINDS,
        make_keys: LoadKeys = SecretKeys,
        missing: list[ConfigError] | None = None,
    ) -> None:
        self.services = services
        self.mask = Mask()
        self._make_keys = make_keys
        self._missing = missing
        self._folders = tuple(folders)
        self._kinds = kinds
        self.current = _NO_PLUGINS
        self._states: dict[tuple[str, str], dict[str, Any]] = {}
        self._modules = PluginModules()
        self._reloading = asyncio.Lock()

    def load(self) -> PluginSet:
        """Load all plugins, before the server runs. Raises `ConfigError` with a line for each error."""
        self.current = self._build()
        return self.current

    async def reload(self) -> PluginSet:
        """Load all plugins anew, in another thread. Raises `ConfigError`; then the old ones stay."""
        async with self._reloading:
            executor = ScriptExecutor("loading", watched=False)
            try:
                self.current = await executor.call_script(self._build_in_executor, RELOAD_TIMEOUT)
            except (TimeoutError, ExecutorLost) as error:
                raise ConfigError(f"the top-level code of a script does not end: {error}") from None
            except ScriptStopped as error:
                raise ConfigError(f"the top-level code of a script: {error}") from None
            finally:
                await executor.close(0)
            return self.current

    def close(self) -> None:
        """Take the folders out of the import system."""
        self._modules.close()

    def describe(self) -> list[str]:
        """Return a line for each plugin in force, for the start of the server."""
        lines = [handler.describe() for handler in self.current.all_handlers]
        for kind, plugins in self.current.plugins.items():
            lines += [plugin.describe() for plugin in plugins if kind not in (HANDLER, WEBHOOK)]
        return lines + [f"config {name}" for name in self.current.configs.names]

    async def _build_in_executor(self) -> PluginSet:
        return self._build()

    def _build(self) -> PluginSet:
        files = find_files(self._folders)
        errors: list[ConfigError] = []
        documents = [doc for file in files for doc in _attempt(errors, read_file, file) or []]
        attempts = [_attempt(errors, parse, document, self._kinds) for document in documents]
        parsed = sorted((plugin for plugin in attempts if plugin), key=lambda plugin: plugin.name)
        errors += _doubled_names(parsed)
        keys = _attempt(errors, self._make_keys)
        configs = self._load_configs(parsed, keys, errors)
        secrets = PluginSecrets(keys, self.mask, self._missing)
        former_modules = self._modules.drop()
        self._modules.search_in(str(file.parent) for file in files)
        try:
            plugins = {
                kind.name: tuple(self._make_plugins(kind, parsed, configs, secrets, errors))
                for kind in self._kinds
                if kind.make
            }
            combined = {
                kind.name: _attempt(errors, kind.combine, plugins[kind.name])
                for kind in self._kinds
                if kind.combine
            }
            if errors:
                raise PluginErrors(sorted(errors, key=lambda e: (e.file or "", e.line or 0)))
        except BaseException:
            self._modules.restore(former_modules)
            raise
        _show_lines([plugin.document for plugin in parsed], self._kinds)
        number = self.current.number + 1
        loaded = [*plugins[HANDLER], *plugins.get(WEBHOOK, ())]
        return PluginSet(
            number,
            _by_event(loaded, shadow=False),
            configs,
            tuple(files),
            plugins,
            combined,
            tuple(f for f in self._folders if not find_files([f])),
            _by_event(loaded, shadow=True),
        )

    def _load_configs(
        self, parsed: list[ParsedPlugin], keys: SecretKeys | None, errors: list[ConfigError]
    ) -> Configs:
        """Resolve the values; their secrets are masked from now on, also if this load fails."""
        values: dict[str, dict[str, Any]] = {}
        for plugin in parsed:
            if isinstance(plugin.model, ConfigModel) and keys is not None:
                references = References(plugin.document, keys, self._missing)
                config = _attempt(errors, references.resolve, plugin.model.config, "config")
                values[plugin.name] = config or {}
                self.mask.add_secrets(references.secrets)
        return Configs(values, mask=self.mask)

    def _make_plugins(
        self,
        kind: Kind,
        parsed: list[ParsedPlugin],
        configs: Configs,
        secrets: PluginSecrets,
        errors: list[ConfigError],
    ) -> Iterable[Plugin]:
        for plugin in parsed:
            if plugin.kind == kind.name and kind.make is not None:
                state = self._states.setdefault((kind.name, plugin.name), {})
                context = PluginContext(self.services, configs, state, secrets)
                result = _attempt(errors, kind.make, plugin, context)
                if result is not None:
                    yield result


def _by_event(plugins: Sequence[Plugin], *, shadow: bool) -> Mapping[str, tuple[Handler, ...]]:
    handlers = [plugin for plugin in plugins if isinstance(plugin, Handler)]
    handlers += [h for plugin in plugins if isinstance(plugin, Webhook) for h in plugin.handlers]
    handlers = sorted((h for h in handlers if h.shadow == shadow), key=lambda h: h.name)
    return MappingProxyType(
        {event: tuple(handler for handler in handlers if handler.event == event) for event in EVENTS}
    )


def _show_lines(documents: list[Document], kinds: Sequence[Kind]) -> None:
    keys = {key for kind in kinds for key in kind.scripts}
    files: dict[Path, list[Document]] = {}
    for document in documents:
        files.setdefault(document.file, []).append(document)
    for file, group in files.items():
        scripts = [d.source(key) for d in group for key in keys if isinstance(d.data.get(key), str)]
        show_lines(str(file), group[0].lines, scripts)


def _attempt(
    errors: list[ConfigError], step: Callable[[*Arguments], Result], *arguments: *Arguments
) -> Result | None:
    """Return what a step returns; None where it failed, with its errors in `errors`."""
    try:
        return step(*arguments)
    except PluginErrors as group:
        errors.extend(group.errors)
    except ConfigError as error:
        errors.append(error)
    return None


def _doubled_names(parsed: list[ParsedPlugin]) -> Iterable[ConfigError]:
    first: dict[tuple[str, str], Document] = {}
    for plugin in parsed:
        kind = HANDLER if plugin.kind == WEBHOOK else plugin.kind  # the journal knows names alone
        document = first.setdefault((kind, plugin.name), plugin.document)
        if document is not plugin.document and "name" in plugin.document.data:
            place = f"{document.file}:{document.line('name')}"
            message = f"there is another {plugin.kind} named {plugin.name!r} at {place}: rename one"
            yield plugin.document.error(message, "name")
