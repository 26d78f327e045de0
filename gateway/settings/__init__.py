"""Settings: flags, environment and file become one frozen object, or errors that name their place.

table, access, events   the settings          sources    values and where they were set
values                  parsers of values     flags      the command line
load                    precedence, checks    reference  generated documentation
cores                   what `--processes auto` stands for
"""

from gateway.settings.access import Token
from gateway.settings.cores import describe_processes, usable_cores
from gateway.settings.flags import add_flags, flag_values, with_hyphens
from gateway.settings.load import exposure_error, is_loopback, load
from gateway.settings.reference import example, reference
from gateway.settings.table import STATE_FOLDER, Settings
from gateway.settings.values import Bucket

__all__ = [
    "STATE_FOLDER",
    "Bucket",
    "Settings",
    "Token",
    "add_flags",
    "describe_processes",
    "example",
    "exposure_error",
    "flag_values",
    "is_loopback",
    "load",
    "reference",
    "usable_cores",
    "with_hyphens",
]
