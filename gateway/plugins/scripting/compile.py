"""The code of scripts, which knows its place in the YAML file, and what `import` finds beside it.

Tracebacks, syntax errors and column marks of Python name the YAML file and its line, and show the line
as it was loaded. Modules beside a plugin are loaded anew at each reload, whatever the clock or a
`__pycache__` says.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import linecache
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any, Final

from gateway.errors import ConfigError

_SESSION_LIBRARY: Final = "aiobotocore"


@dataclass(frozen=True, slots=True)
class ScriptSource:
    """A script in its file: `line` (from 1) is its first line, `indent` its margin."""

    text: str
    file: str
    line: int
    indent: int = 0


def compile_source(source: ScriptSource) -> CodeType:
    """Compile a script. Raises `ConfigError` with the line inside the YAML on a syntax error."""
    # Empty lines rather than a moved syntax tree: building trees in two threads at once (the
    # standard library does it for every traceback) makes CPython 3.11 raise SystemError.
    padded = "\n" * (source.line - 1) + source.text
    try:
        return compile(padded, source.file, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = max(error.lineno or 0, source.line)
        raise ConfigError(f"syntax error in the script: {error.msg}", source.file, line) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the script cannot be compiled: {error}", source.file, source.line) from None


def show_lines(file: str, lines: Sequence[str], sources: Iterable[ScriptSource]) -> None:
    """Make tracebacks show the lines of `file` as they were loaded, not as they are on the disk now.

    The lines of block scalars lose their margin, so that the marks under a line are in place.
    """
    shown = list(lines)
    for source in sources:
        if source.indent:
            script = source.text.splitlines()
            shown[source.line - 1 : source.line - 1 + len(script)] = script
    text = [f"{line}\n" for line in shown]
    linecache.cache[file] = (sum(map(len, text)), None, text, file)


def provide_get_session(text: str) -> None:
    """Give `aiobotocore` back its `get_session()` where the code in `text` speaks of that library.

    Published scripts call `aiobotocore.get_session()`; releases since 2.0 keep it in
    `aiobotocore.session`. Looking for the name in the source is the simplest way that needs no
    import hook. It imports the library while plugins load: importing takes half a second, which
    would block the executor at the first request.
    """
    if _SESSION_LIBRARY not in text:
        return
    with contextlib.suppress(ImportError):
        library = importlib.import_module(_SESSION_LIBRARY)
        session = importlib.import_module(f"{_SESSION_LIBRARY}.session")
        if not hasattr(library, "get_session"):
            library.__dict__["get_session"] = session.get_session


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Loads source without `__pycache__`: its one-second clock would hide a quick change."""

    def path_stats(self, path: Any) -> Any:
        """Raise `OSError`: then no cached code is read or written."""
        raise OSError("cached code is not used for plugins")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:  # type: ignore[override]  # the stub lacks the private argument that importlib passes
        """Compile a module, with `aiobotocore.get_session` if it needs that."""
        if isinstance(data, bytes):
            provide_get_session(data.decode(errors="replace"))
        code: CodeType = super().source_to_code(data, path)
        return code


class PluginModules:
    """The last finder of the meta path, for modules in the folders of plugins."""

    def __init__(self) -> None:
        self._folders: tuple[str, ...] = ()

    def search_in(self, folders: Iterable[str]) -> None:
        """Search these folders from now on, in this order."""
        self._folders = tuple(dict.fromkeys(os.path.abspath(folder) for folder in folders))
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def close(self) -> None:
        """Stop searching."""
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module (`importlib.abc.MetaPathFinder`)."""
        folders = self._folders if path is None else [step for step in path if self._is_plugin(step)]
        for folder in folders:
            finder = importlib.machinery.FileFinder(folder, (_FreshLoader, [".py"]))
            spec = finder.find_spec(name)
            if spec is not None and spec.loader is not None:
                return spec
        return None

    def drop(self) -> dict[str, ModuleType]:
        """Remove the modules of the folders from `sys.modules`; return them by name."""
        loaded = sys.modules.copy()  # another thread may import meanwhile
        names = [name for name, module in loaded.items() if self._is_plugin(_origin(module))]
        return {name: sys.modules.pop(name) for name in names}

    def restore(self, modules: dict[str, ModuleType]) -> None:
        """Put back what `drop` returned, in place of modules loaded since."""
        self.drop()
        sys.modules.update(modules)

    def _is_plugin(self, place: str | None) -> bool:
        return place is not None and any(
            place == f or place.startswith(f + os.sep) for f in self._folders
        )


def _origin(module: ModuleType) -> str | None:
    loader = getattr(module, "__loader__", None)
    return loader.path if isinstance(loader, _FreshLoader) and isinstance(loader.path, str) else None
