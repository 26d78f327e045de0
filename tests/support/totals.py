"""One closing line for several runs of pytest: each adds the reports of the earlier ones to its own.

A pytest plugin. The environment variable TEST_TOTALS names the file that hands the reports on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Count and list the tests of the earlier runs too; what one run left to the other is no result."""
    if "TEST_TOTALS" not in os.environ or hasattr(config, "workerinput"):  # a worker of xdist
        return
    path, hook, stats = Path(os.environ["TEST_TOTALS"]), config.hook, terminalreporter.stats
    reports: list[tuple[str, dict[str, Any]]] = json.loads(path.read_text() or "[]")
    earlier = len(reports)
    for word in COUNTED:
        for report in stats.get(word, []):
            data = hook.pytest_report_to_serializable(config=config, report=report)
            data.pop("node", None)  # the worker process, no part of the result
            reports.append((word, data))
    path.write_text(json.dumps(reports))
    for word, data in reports[:earlier]:
        report = hook.pytest_report_from_serializable(config=config, data=data)
        stats.setdefault(word, []).append(report)
    stats.pop("deselected", None)
