"""Folders of YAML -> one generation of compiled plugins, swapped in as a whole.

One rule: a generation is whole or it is not there: any fault keeps the old one, and all faults are
told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from gateway.domain.model import SCHEDULE
from gateway.domain.schedules import Schedule
from gateway.errors import ConfigError
from gateway.plugins.handlers import Handler, make_handler
from gateway.plugins.interpolation import References
from gateway.plugins.kinds import KINDS, Kind, Parsed, PluginContext, parse
from gateway.plugins.models import EVENTS, ConfigModel, HandlerModel
from gateway.plugins.scripting import Configs, ExecutorLost, ScriptExecutor, ScriptStopped, Services
from gateway.plugins.scripting.compile import ScriptSource, show_lines
from gateway.plugins.scripting.modules import PluginModules
from gateway.plugins.secrets import MakeKeys, SecretKeys
from gateway.plugins.yaml_documents import Document, PluginFaults, find_files, read_file
from gateway.telemetry.redaction import Mask

LOADING_SECONDS: Final = 120.0
"""How long a reload may take: a script's top-level code may never end."""


@dataclass(frozen=True, slots=True)
class PluginSet:
    """All plugins as they were loaded at one moment. Handlers of each event are in name order.

    `made` holds, by the name of the kind, what the plugins of higher rooms were made into, and
    `gathered` the one thing that their kind made of them all.
    """

    number: int
    handlers: Mapping[str, tuple[Handler, ...]]
    configs: Configs
    files: tuple[Path, ...] = ()
    made: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    gathered: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def schedules(self) -> dict[str, Schedule]:
        """When each `Schedule` handler is due, by its name."""
        handlers = self.handlers[SCHEDULE]
        return {one.name: one.schedule for one in handlers if one.schedule is not None}

    def handler(self, event: str, name: str) -> Handler | None:
        """Return a handler by event and name."""
        return next((one for one in self.handlers.get(event, ()) if one.name == name), None)


_NOTHING: Final = PluginSet(0, MappingProxyType(dict.fromkeys(EVENTS, ())), Configs({}))


class Plugins:
    """The plugins of some folders. `current` is the newest generation that had no fault.

    `mask` takes the secrets of all configs, also of former generations, out of a text. `keys` is
    asked at every load.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        services: Services,
        kinds: Sequence[Kind] = KINDS,
        keys: MakeKeys = SecretKeys,
    ) -> None:
        self.services = services
        self.mask = Mask()
        self._keys = keys
        self._folders = tuple(folders)
        self._kinds = kinds
        self._current = _NOTHING
        self._states: dict[tuple[str, str], dict[str, Any]] = {}
        self._modules = PluginModules()
        self._reloading = asyncio.Lock()

    @property
    def current(self) -> PluginSet:
        """The generation in force: one reference, so that whoever reads it has all of one moment."""
        return self._current

    def load(self) -> PluginSet:
        """Load all plugins, before the server runs. Raises `ConfigError` with a line for each fault."""
        self._current = self._build()
        return self._current

    async def reload(self) -> PluginSet:
        """Load all plugins anew, in another thread. Raises `ConfigError`; then the old ones stay."""
        async with self._reloading:
            lane = ScriptExecutor("loading", watched=False)
            try:
                self._current = await lane.call(self._build_in_lane, LOADING_SECONDS)
            except (TimeoutError, ExecutorLost) as error:
                raise ConfigError(f"the top-level code of a script does not end: {error}") from None
            except ScriptStopped as error:
                raise ConfigError(f"the top-level code of a script: {error}") from None
            finally:
                await lane.close(0)
            return self._current

    def close(self) -> None:
        """Let `import` look into the folders no more."""
        self._modules.close()

    def describe(self) -> list[str]:
        """Return a line for each handler and config in force, for the start of the server."""
        now = self._current
        lines = [handler.describe() for event in EVENTS for handler in now.handlers[event]]
        lines += [one.describe() for several in now.made.values() for one in several]
        return lines + [f"config {name}" for name in now.configs.names]

    async def _build_in_lane(self) -> PluginSet:
        return self._build()

    def _build(self) -> PluginSet:
        files = find_files(self._folders)
        faults: list[ConfigError] = []
        documents = [doc for file in files for doc in _try(faults, read_file, file) or []]
        parsed = [one for doc in documents if (one := _try(faults, parse, doc, self._kinds))]
        _check_names(parsed, faults)
        configs = self._configs(parsed, faults)
        before = self._modules.drop()
        self._modules.look_in(str(file.parent) for file in files)
        try:
            handlers = self._handlers(parsed, configs, faults)
            made = {
                kind.name: self._made(kind, parsed, configs, faults) for kind in self._kinds if kind.make
            }
            gathered = _gathered(self._kinds, made, faults)
            if faults:
                raise PluginFaults(_in_order(faults))
        except BaseException:
            self._modules.restore(before)
            raise
        _show_lines([one.document for one in parsed], self._kinds)
        return PluginSet(self._current.number + 1, handlers, configs, tuple(files), made, gathered)

    def _configs(self, parsed: list[Parsed], faults: list[ConfigError]) -> Configs:
        """Resolve the values; what they hold is masked from now on, also if this load fails."""
        values: dict[str, dict[str, Any]] = {}
        keys: SecretKeys | None = _try(faults, self._keys)
        for one in parsed:
            if isinstance(one.value, ConfigModel) and keys is not None:
                references = References(one.document, keys)
                values[one.name] = _try(faults, references.resolve, one.value.config, "config") or {}
                self.mask.add_secrets(references.secrets)
        return Configs(values, mask=self.mask)

    def _handlers(
        self, parsed: list[Parsed], configs: Configs, faults: list[ConfigError]
    ) -> Mapping[str, tuple[Handler, ...]]:
        made = []
        for one in parsed:
            if isinstance(one.value, HandlerModel):
                state = self._states.setdefault((one.kind, one.name), {})
                made.append(
                    _try(faults, make_handler, one.document, one.value, self.services, configs, state)
                )
        known = sorted((one for one in made if one), key=lambda handler: handler.name)
        return MappingProxyType({event: tuple(h for h in known if h.event == event) for event in EVENTS})

    def _made(
        self, kind: Kind, parsed: list[Parsed], configs: Configs, faults: list[ConfigError]
    ) -> tuple[Any, ...]:
        """Make all plugins of a kind, in name order."""
        made = []
        for one in sorted(parsed, key=lambda one: one.name):
            if one.kind == kind.name:
                state = self._states.setdefault((one.kind, one.name), {})
                material = PluginContext(self.services, configs, state)
                made.append(_try(faults, kind.make, one, material))
        return tuple(one for one in made if one is not None)


def _gathered(
    kinds: Sequence[Kind], made: Mapping[str, tuple[Any, ...]], faults: list[ConfigError]
) -> Mapping[str, Any]:
    return {kind.name: _try(faults, kind.gather, made[kind.name]) for kind in kinds if kind.gather}


def _show_lines(documents: list[Document], kinds: Sequence[Kind]) -> None:
    keys = {key for kind in kinds for key in kind.scripts}
    sources: dict[str, list[ScriptSource]] = {str(document.file): [] for document in documents}
    for document in documents:
        held = [key for key in keys if isinstance(document.data.get(key), str)]
        sources[str(document.file)] += map(document.source, held)
    for file, lines in {str(document.file): document.lines for document in documents}.items():
        show_lines(file, lines, sources[file])


def _try(faults: list[ConfigError], step: Any, *arguments: Any) -> Any:
    try:
        return step(*arguments)
    except PluginFaults as several:
        faults.extend(several.faults)
    except ConfigError as fault:
        faults.append(fault)
    return None


def _check_names(parsed: list[Parsed], faults: list[ConfigError]) -> None:
    first: dict[tuple[str, str], Document] = {}
    for one in parsed:
        document = first.setdefault((one.kind, one.name), one.document)
        if document is not one.document and "name" in one.document.data:
            place = f"{document.file}:{document.line('name')}"
            message = f"there is another {one.kind} named {one.name!r} at {place}: rename one"
            faults.append(one.document.fault(message, "name"))


def _in_order(faults: list[ConfigError]) -> list[ConfigError]:
    return sorted(faults, key=lambda fault: (fault.file or "", fault.line or 0))
