"""Puts the shipped plugin sets into the package: `--plugins builtin:NAME` finds them in a wheel.

Everything else about the distribution is in `setup.cfg`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPluginSets(build_py):
    """Copies `plugins/` to `gateway/builtin_plugins/`. A checkout is served from `plugins/` itself."""

    def run(self) -> None:
        """Build the package, then add the sets."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "gateway", "builtin_plugins")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("plugins", target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithPluginSets})
