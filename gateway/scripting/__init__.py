"""Scripting room: all that a script of a plugin can see, and the threads it runs in.

One rule: scripts never run on the server's loop. Knows nothing of YAML, events or doors. May import
`storage` and below.
"""

from gateway.scripting.callout import Answer, Callout, HTTPError
from gateway.scripting.configs import Configs
from gateway.scripting.decision import Changes, Handle, Junk, Served, Verdict, read_changes, read_served
from gateway.scripting.event import MU, Event, Headers, downloading_event, failed_event, uploading_event
from gateway.scripting.files import Files
from gateway.scripting.lane_thread import ScriptStopped, TimedOut, never_waits
from gateway.scripting.lanes import Lane, LaneLost
from gateway.scripting.namespace import Services, Surroundings, run_script

__all__ = [
    "MU",
    "Answer",
    "Callout",
    "Changes",
    "Configs",
    "Event",
    "Files",
    "HTTPError",
    "Handle",
    "Headers",
    "Junk",
    "Lane",
    "LaneLost",
    "ScriptStopped",
    "Served",
    "Services",
    "Surroundings",
    "TimedOut",
    "Verdict",
    "downloading_event",
    "failed_event",
    "never_waits",
    "read_changes",
    "read_served",
    "run_script",
    "uploading_event",
]
