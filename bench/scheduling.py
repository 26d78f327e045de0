"""The processor time of the bench, apart from that of the rest of the machine.

Linux with autogroups (`sched(7)`) shares the processors among sessions, and `nice` counts only within
a session: work in another session, however nice, takes a full share, and no figure can be trusted. So
`scripts/bench` starts the bench in a new session, this module raises the weight of that session, and
servers and clients stay in it, side by side with equal weights.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ENABLED: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
OWN: Final = Path("/proc/self/autogroup")

NICE: Final = -15
"""Of the session of the bench: about 28 times the weight of an ordinary session."""

COMPETES: Final = "other work competes with the servers process by process"


def isolate(enabled: Path = ENABLED, own: Path = OWN) -> str:
    """Raise the weight of this session; return a sentence on what was done, or why not.

    A session that this process does not lead belongs to others too, and is left alone.
    """
    try:
        if enabled.read_text().strip() == "0":
            return f"scheduling: autogroups are turned off; {COMPETES}"
        if os.getsid(0) != os.getpid():
            return "scheduling: not isolated from other work: start it with scripts/bench"
        own.write_text(str(NICE))
    except FileNotFoundError:
        return f"scheduling: this system has no autogroups; {COMPETES}"
    except OSError as error:
        return (
            f"scheduling: not isolated from other work, {own} cannot be set ({error.strerror}):"
            " run it as root, or stop all other work"
        )
    return f"scheduling: a session of its own, nice {NICE}; other work gets what it leaves"
