"""Sources of settings: command line, environment and settings file.

A source returns texts (or lists of texts) with their place, and checks names, not values. YAML
scalars stay as written, so that `0640` means the same in all sources.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import ConfigError
from gateway.settings.option import PREFIX, Setting
from gateway.settings.table import settings_table
from gateway.settings.values import BUILTIN

ROWS: Final[Mapping[str, Setting]] = {row.name: row for row in settings_table()}

_MAX_DEPTH: Final = 4
_NULL: Final = "tag:yaml.org,2002:null"
_KUBERNETES: Final = PREFIX + "SERVICE_HOST"

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SourcedValue:
    """A value as written. `label` names its flag, variable or key; a file has `lines` per location."""

    value: Any
    label: str
    file: str | None = None
    lines: Mapping[Location, int] = field(default_factory=dict)

    def error(self, message: str, inner: Location = ()) -> ConfigError:
        """Return an error that names the place: flag, variable, or file and line."""
        inside = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in inner)
        line = next(
            (self.lines[inner[:n]] for n in range(len(inner), -1, -1) if inner[:n] in self.lines), None
        )
        return ConfigError(f"{self.label}{inside}: {message}", self.file, line)


def from_flags(flags: Mapping[str, object]) -> dict[str, SourcedValue]:
    """Return the values of the command line; `flags` is keyed by the setting's name."""
    return {
        name: SourcedValue(_pieces(ROWS[name], value, ","), ROWS[name].flag)
        for name, value in flags.items()
        if name in ROWS
    }


def from_environment(environ: Mapping[str, str], errors: list[ConfigError]) -> dict[str, SourcedValue]:
    """Return every `UPLOAD_GATEWAY_*` variable; append unknown and empty ones to `errors`."""
    by_variable = {row.variable: row for row in ROWS.values()}
    values: dict[str, SourcedValue] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        row = by_variable.get(variable)
        if row is None:
            errors.append(ConfigError(_unknown_variable(variable, by_variable, environ)))
        elif environ[variable] == "":
            errors.append(ConfigError(f"{variable} is empty: give it a value or unset it"))
        else:
            pieces = _pieces(row, environ[variable], row.option.separator)
            values[row.name] = SourcedValue(pieces, variable)
    return values


def from_file(path: Path, errors: list[ConfigError]) -> dict[str, SourcedValue]:
    """Read the settings file; append unknown, repeated and misplaced keys to `errors`.

    Raises `ConfigError` if it cannot be read or is no YAML mapping.
    """
    document = _compose(path)
    values: dict[str, SourcedValue] = {}
    for key, node in document:
        line = key.start_mark.line + 1
        name = str(key.value).replace("-", "_")
        row = ROWS.get(name)
        if row is None:
            errors.append(ConfigError(_unknown(f"key {key.value!r}", name, ROWS), str(path), line))
        elif not row.option.in_file:
            ways = f"{row.flag} or {row.variable}" if row.option.in_flags else row.variable
            message = f"{name} cannot be set in the settings file; use {ways}"
            errors.append(ConfigError(message, str(path), line))
        elif name in values:
            errors.append(ConfigError(f"{name} is set twice; keep one", str(path), line))
        elif node.tag != _NULL:
            lines: dict[Location, int] = {}
            try:
                values[name] = SourcedValue(
                    _listed(row, _plain(node, (), lines)), name, str(path), lines
                )
            except ValueError as error:
                errors.append(ConfigError(f"{name}: {error}", str(path), line))
    return values


def _compose(path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the pairs of the mapping. Messages of PyYAML may quote the file, so they are not used."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}; check --config", str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text; save it as UTF-8", str(path)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(
            f"is not valid YAML ({error.problem}); fix this line", str(path), line
        ) from None
    except yaml.YAMLError:
        raise ConfigError(
            "is not valid YAML; it holds a character that YAML forbids", str(path)
        ) from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("must hold `key: value` lines", str(path), root.start_mark.line + 1)
    return list(root.value)


def _plain(node: yaml.Node, here: Location, lines: dict[Location, int]) -> Any:
    """Convert a node to texts, lists and dicts; record lines. Raises `ValueError` if too deep."""
    if len(here) > _MAX_DEPTH:
        raise ValueError("is nested too deeply")
    lines[here] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*here, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return {str(key.value): _plain(item, (*here, str(key.value)), lines) for key, item in node.value}
    return node.value


def _listed(row: Setting, value: Any) -> Any:
    return [value] if row.is_list and isinstance(value, str) else value


def _pieces(row: Setting, value: object, separator: str) -> object:
    """Split the text of a list setting; paths on the command line are not split."""
    if not row.is_list:
        return value
    texts = [str(text) for text in value] if isinstance(value, list | tuple) else [str(value)]
    if separator == "," and row.option.path:
        return texts
    return [piece.strip() for text in texts for piece in _split(text, separator) if piece.strip()]


def _split(text: str, separator: str) -> list[str]:
    """Split a text; the colon of `builtin:NAME` belongs to it (a folder of that name is `./builtin`)."""
    pieces: list[str] = []
    for piece in text.split(separator):
        if separator == ":" and pieces and f"{pieces[-1].strip()}:" == BUILTIN:
            pieces[-1] = BUILTIN + piece.strip()
        else:
            pieces.append(piece)
    return pieces


def _unknown(what: str, name: str, valid: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, valid, 1)
    hint = f"did you mean {close[0]}?" if close else "`gateway --help` lists them"
    return f"unknown {what}; {hint}"


def _unknown_variable(variable: str, valid: Iterable[str], environ: Mapping[str, str]) -> str:
    if _KUBERNETES in environ:
        return (
            f"unknown environment variable {variable}, injected by Kubernetes for a Service called"
            " upload-gateway; set `enableServiceLinks: false` in the pod"
        )
    return _unknown(f"environment variable {variable}", variable, valid)
