"""Runs the checks for a running server, which sends its own settings to the standard input.

So they need no flags, and secrets are in no command line. Each finding is a line of JSON at once: where
the server ends this process, it has those of the checks so far.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict

from gateway.cli.doctor import all_findings

settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that has started this one
for finding in all_findings(settings):
    print(json.dumps(asdict(finding)), flush=True)
