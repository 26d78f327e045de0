"""A row of the settings table: its `Option`, and the names of its flag and variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, get_origin

from pydantic import BeforeValidator, Field
from pydantic.fields import FieldInfo

from gateway.domain.units import format_duration
from gateway.settings import values

PREFIX: Final = "UPLOAD_GATEWAY_"
"""Not GATEWAY_: a Kubernetes Service called gateway would inject GATEWAY_PORT."""

Seconds = Annotated[float, BeforeValidator(values.duration), Field(ge=0, allow_inf_nan=False)]
"""A duration: a number of seconds, or a text with a unit."""


@dataclass(frozen=True, slots=True)
class Option:
    """Documentation and parsing of a setting.

    `group` is its heading, `metavar` stands for its value, `shown` documents a default that is
    computed. `path` values are made absolute; `secret` ones are never quoted in an error. `in_file`
    is False for settings that a file cannot hold, `in_flags` for secrets, which other users could
    read in the process list. The reference links to the how-to `page`.
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
    page: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: the field's name, its `Option` and pydantic's field."""

    name: str
    option: Option
    field: FieldInfo

    @property
    def flag(self) -> str:
        """`--max-bytes`; `--max_bytes` is accepted too."""
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
        """Whether the flag needs no value: `--downloads` is `--downloads=true`."""
        return self.field.annotation is bool

    @property
    def default(self) -> str:
        """The default as an operator writes it; empty if there is none."""
        value: Any = self.field.default
        if self.option.shown is not None:
            return self.option.shown
        if value is None or value == ():
            return ""
        if isinstance(value, bool):
            return str(value).lower()
        return format_duration(value) if isinstance(value, float) else str(value)
