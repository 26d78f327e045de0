"""What a script of a plugin can see, and the executors it runs in, never on the server's loop."""

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
from gateway.plugins.scripting.executor_thread import ScriptStopped, TimedOut, never_suspends
from gateway.plugins.scripting.files import Files
from gateway.plugins.scripting.namespace import PluginContext, ScriptContext, Services, run_script

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
    "PluginContext",
    "ScriptContext",
    "ScriptExecutor",
    "ScriptStopped",
    "Served",
    "Services",
    "TimedOut",
    "Verdict",
    "never_suspends",
    "read_changes",
    "read_served",
    "run_script",
]
