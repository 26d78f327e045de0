"""The plugin's modules for tests of their parts; a gateway that loads the plugin gets its own ones."""

from __future__ import annotations

import sys

from tests.support import PROJECT

PLUGIN = PROJECT / "plugins" / "exports"

sys.path.insert(0, str(PLUGIN))
try:
    from export_asking import (
        Asked,
        Rules,
        TooManyQueued,
        Wrong,
        asked,
        bounds,
        finished,
        folder_of,
        is_id,
        is_over,
        revive,
        share,
    )
    from export_files import MAX_COLUMNS, Spool, cell
finally:
    sys.path.remove(str(PLUGIN))
    for name in ("export_asking", "export_files"):
        sys.modules.pop(name, None)

__all__ = [
    "MAX_COLUMNS",
    "PLUGIN",
    "Asked",
    "Rules",
    "Spool",
    "TooManyQueued",
    "Wrong",
    "asked",
    "bounds",
    "cell",
    "finished",
    "folder_of",
    "is_id",
    "is_over",
    "revive",
    "share",
]
