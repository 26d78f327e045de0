"""Settings: what a row of the table consists of, and the names that follow from it.

The rule: no setting is named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_origin

from pydantic.fields import FieldInfo

PREFIX: Final = "UPLOAD_GATEWAY_"
"""Not GATEWAY_: a Kubernetes Service called gateway would inject GATEWAY_PORT."""


@dataclass(frozen=True, slots=True)
class Option:
    """What an operator is told about a setting.

    `group` is its heading, `metavar` stands for its value, `shown` replaces the default in the
    documentation where the true one is computed. `path` values are made absolute; `secret` ones
    are never quoted in a complaint; `in_file` is False where the key makes no sense in the file,
    `in_flags` where the command line is no place for it (others can read it in the process list).
    """

    group: str
    help: str
    metavar: str
    shown: str | None = None
    path: bool = False
    secret: bool = False
    in_file: bool = True
    separator: str = ","
    in_flags: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: the field's name, its `Option` and pydantic's field."""

    name: str
    option: Option
    field: FieldInfo

    @property
    def flag(self) -> str:
        """`--max-bytes`; underscores are taken as well."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`UPLOAD_GATEWAY_MAX_BYTES`."""
        return PREFIX + self.name.upper()

    @property
    def is_list(self) -> bool:
        """Whether the setting holds several values."""
        return get_origin(self.field.annotation) is tuple

    @property
    def is_switch(self) -> bool:
        """Whether the bare flag says all: `--downloads` is `--downloads=true`."""
        return self.field.annotation is bool

    @property
    def default(self) -> str:
        """The default as an operator would write it; empty where there is none."""
        value: Any = self.field.default
        if self.option.shown is not None:
            return self.option.shown
        if value is None or value == ():
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:g}" if isinstance(value, float) and value < 1e6 else str(value)
