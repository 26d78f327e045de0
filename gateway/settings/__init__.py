"""Settings: flags, environment and file become one frozen object, or one clear line of complaint.

The rule of the room: a setting is written down once, in `table`; its flag, its environment name,
its key in the file, its documentation and the example file all come from there. Nothing is guessed
and nothing is ignored: an unknown name is an error.

    table      the settings themselves        sources    who said what, and where
    values     how a text becomes a value     flags      the command line
    load       precedence and cross checks    reference  the documentation
"""

from gateway.settings.flags import add_flags, said_on_command_line, with_hyphens
from gateway.settings.load import exposed, is_loopback, load
from gateway.settings.reference import example, reference
from gateway.settings.table import STATE_FOLDER, Bucket, Settings, Token

__all__ = [
    "STATE_FOLDER",
    "Bucket",
    "Settings",
    "Token",
    "add_flags",
    "example",
    "exposed",
    "is_loopback",
    "load",
    "reference",
    "said_on_command_line",
    "with_hyphens",
]
