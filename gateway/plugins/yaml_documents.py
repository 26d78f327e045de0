"""YAML files as documents that know the line of each of their keys.

Every error names file and line, and none quotes a value: it may be a secret.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import ConfigError
from gateway.plugins.scripting.compile import ScriptSource

SUFFIXES: Final = (".yaml", ".yml")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD_TAG: Final = "tag:yaml.org,2002:"
_TAG: Final = "!secret"


@dataclass(frozen=True, slots=True, repr=False)
class SecretToken:
    """A value behind the tag `!secret`: still encrypted."""

    text: str

    def __repr__(self) -> str:
        return "<!secret>"


class _Constructor(yaml.constructor.SafeConstructor):
    """Makes Python values of nodes, as YAML's safe schema does, and a `SecretToken` of `!secret`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        if node.tag == _TAG:
            return SecretToken(str(node.value))
        return super().construct_object(node, deep)


class PluginErrors(ConfigError):
    """All errors of the plugins, one line each in `str()`."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(map(str, errors)), None, None)
        self.errors = tuple(errors)
        self.file = errors[0].file
        self.line = errors[0].line


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """One plugin as it was read: its keys and values, and where they stand.

    `spellings` says how the author wrote a key that was read under its documented name.
    """

    file: Path
    node: yaml.MappingNode
    data: dict[str, Any]
    lines: tuple[str, ...]
    spellings: Mapping[tuple[object, ...], str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the file."""
        return str(self.file.parent)

    def line(self, *where: object) -> int:
        """Return the line (from 1) of the key or item that `where` leads to, or the nearest above."""
        node: yaml.Node = self.node
        line: int = node.start_mark.line + 1
        for step in where:
            child = _child(node, step)
            if child is None:
                break
            line, node = child
        return line

    def error(self, message: str, *where: object) -> ConfigError:
        """Return the error `message` at the key that `where` leads to."""
        return ConfigError(message, str(self.file), self.line(*where))

    def dotted(self, where: Sequence[object]) -> str:
        """Return the name of a key such as `proxy.path`, spelled as in the file."""
        steps = (tuple(where[: depth + 1]) for depth in range(len(where)))
        return ".".join(str(self.spellings.get(step, step[-1])) for step in steps)

    def source(self, key: str) -> ScriptSource:
        """Return the script under `key` with its place. A block scalar begins on the next line."""
        text: str = self.data[key]
        child = _child(self.node, key)
        node = child[1] if child else self.node
        style = node.style if isinstance(node, yaml.ScalarNode) else None
        first = node.start_mark.line + (2 if style in ("|", ">") else 1)
        return ScriptSource(
            text, str(self.file), first, self._margin(text, first) if style == "|" else 0
        )

    def _margin(self, text: str, first: int) -> int:
        for offset, line in enumerate(text.splitlines()):
            if line.strip():
                raw = self.lines[first - 1 + offset].rstrip("\n")
                return len(raw) - len(line) if raw.endswith(line) else 0
        return 0


def find_files(folders: Iterable[Path]) -> list[Path]:
    """Return the YAML files below `folders`, sorted, each once; hidden names are skipped.

    Symbolic links are followed, a loop of them once. Raises `ConfigError` if a folder does not exist.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                "this plugins folder does not exist: create it or correct --plugins", str(folder)
            )
        for path in sorted(_walk(folder)):
            files.setdefault(os.path.realpath(path), path)
    return list(files.values())


def read_file(file: Path) -> list[Document]:
    """Read a file: one document, several behind `---`, or lists of them. Raises `ConfigError`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        nodes = list(yaml.compose_all(text, _LOADER))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(f"this is not YAML: {error.problem}", str(file), line) from None
    except yaml.YAMLError:
        raise ConfigError(
            "this is not YAML: it has characters that YAML does not allow", str(file)
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8", str(file)) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", str(file)) from None
    lines = tuple(text.splitlines())
    return [_document(file, node, lines) for root in nodes for node in _items(root)]


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        subfolders[:] = [] if real in seen else [name for name in subfolders if name[0] != "."]
        if real in seen:
            continue
        seen.add(real)
        yield from (
            Path(parent, name) for name in names if name.endswith(SUFFIXES) and not name.startswith(".")
        )


def _items(root: yaml.Node | None) -> list[yaml.Node]:
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return []
    return list(root.value) if isinstance(root, yaml.SequenceNode) else [root]


def _document(file: Path, node: yaml.Node, lines: tuple[str, ...]) -> Document:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError("a plugin is a mapping of keys such as `name:` to values", str(file), line)
    _check(file, node, set())
    _check_secrets(file, node)
    try:
        data = _Constructor().construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else line
        raise ConfigError(
            "a value does not have the form that its YAML tag asks for", str(file), line
        ) from None
    except ValueError:
        raise ConfigError("a value (a date?) cannot be read: quote it", str(file), line) from None
    return Document(file, node, data, lines)


def _check(file: Path, node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:
        return
    seen.add(id(node))
    line = node.start_mark.line + 1
    if node.tag == _TAG and not isinstance(node, yaml.ScalarNode):
        raise ConfigError("!secret stands before one token: encrypt values one by one", str(file), line)
    if not node.tag.startswith(_STANDARD_TAG) and node.tag != _TAG:
        name = node.tag.split(" ")[0]
        raise ConfigError(f"this version does not know the YAML tag {name}", str(file), line)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(file, item, seen)
    if isinstance(node, yaml.MappingNode):
        _check_keys(file, node)
        for _, value in node.value:
            _check(file, value, seen)


def _check_secrets(file: Path, document: yaml.MappingNode) -> None:
    """Only values of a Config are decrypted; elsewhere a script would get the token as it is."""
    for key, value in document.value:
        if key.value == "config":
            continue
        line = _line_of_secret(value, set())
        if line is not None:
            raise ConfigError(
                "!secret belongs into a Config plugin (`config:`), from where scripts read it with"
                " get_service_config",
                str(file),
                line,
            )


def _line_of_secret(node: yaml.Node, seen: set[int]) -> int | None:
    if id(node) in seen:
        return None
    seen.add(id(node))
    if node.tag == _TAG:
        secret_line: int = node.start_mark.line + 1
        return secret_line
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [value for _, value in node.value]
    return next((line for child in children if (line := _line_of_secret(child, seen))), None)


def _check_keys(file: Path, node: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG:
            raise ConfigError("a key must be a plain word", str(file), line)
        if key.value in keys and key.value != "<<":
            raise ConfigError(f"the key `{key.value}` stands here twice", str(file), line)
        keys.add(key.value)


def _child(node: yaml.Node, step: object) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None
