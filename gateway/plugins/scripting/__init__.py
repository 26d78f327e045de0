"""All that a script of a plugin can see, and the threads it runs in.

One rule: scripts never run on the server's loop. Knows nothing of YAML, events or doors.
"""

from gateway.plugins.scripting.callout import Callout, CalloutResponse, HTTPError
from gateway.plugins.scripting.configs import Configs
from gateway.plugins.scripting.decision import (
    Changes,
    Handle,
    InvalidResult,
    Served,
    Verdict,
    read_changes,
    read_served,
)
from gateway.plugins.scripting.event import (
    MU,
    Event,
    Headers,
)
from gateway.plugins.scripting.executor import ExecutorLost, ScriptExecutor
from gateway.plugins.scripting.executor_thread import ScriptStopped, TimedOut, never_waits
from gateway.plugins.scripting.files import Files
from gateway.plugins.scripting.namespace import ScriptContext, Services, run_script

__all__ = [
    "MU",
    "Callout",
    "CalloutResponse",
    "Changes",
    "Configs",
    "Event",
    "ExecutorLost",
    "Files",
    "HTTPError",
    "Handle",
    "Headers",
    "InvalidResult",
    "ScriptContext",
    "ScriptExecutor",
    "ScriptStopped",
    "Served",
    "Services",
    "TimedOut",
    "Verdict",
    "never_waits",
    "read_changes",
    "read_served",
    "run_script",
]
