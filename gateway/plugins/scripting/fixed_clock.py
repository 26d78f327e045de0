"""A clock that stands still, for the tests of plugins that say `now:`.

A script that is run with it finds `time` and `datetime` with this time, the name `time` and what it
imports itself. The monotonic clocks go on, and so do the clocks of every other module.
"""

from __future__ import annotations

import builtins
import datetime
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Self

_OF_A_MOMENT: Final = ("gmtime", "localtime", "ctime")
"""Functions of `time` that take the present time where they are given none."""

_OF_A_TUPLE: Final = {"asctime": 0, "strftime": 1}
"""Functions of `time` that take the present local time where they have no argument at this position."""


class FixedClock:
    """The clock of one test. `now` is a Unix time."""

    def __init__(self, now: float) -> None:
        self._now = now
        self.modules: Final = {"time": _time_module(self.now), "datetime": _datetime_module(self.now)}

    def now(self) -> float:
        """Return the Unix time."""
        return self._now

    def builtins(self) -> dict[str, Any]:
        """Return the built-in names of a script whose imports find this clock."""

        def import_with_clock(name: str, *args: Any, **options: Any) -> ModuleType:
            return self.modules.get(name) or builtins.__import__(name, *args, **options)

        return {**vars(builtins), "__import__": import_with_clock}


def _time_module(now: Callable[[], float]) -> ModuleType:
    module = _copy(time)

    def of_a_moment(name: str) -> Callable[..., Any]:
        function = getattr(time, name)
        return lambda seconds=None: function(now() if seconds is None else seconds)

    def of_a_tuple(name: str, position: int) -> Callable[..., Any]:
        function = getattr(time, name)

        def with_tuple(*args: Any) -> Any:
            return function(*args, *([] if len(args) > position else [time.localtime(now())]))

        return with_tuple

    changed = {"time": now, "time_ns": lambda: int(now() * 1_000_000_000)}
    changed |= {name: of_a_moment(name) for name in _OF_A_MOMENT}
    changed |= {name: of_a_tuple(name, position) for name, position in _OF_A_TUPLE.items()}
    vars(module).update(changed)
    return module


def _datetime_module(now: Callable[[], float]) -> ModuleType:
    class OfRealDates(type):
        """Also takes a real date as an instance of the class that has the clock."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, cls.__mro__[1])

    class ClockDateTime(datetime.datetime, metaclass=OfRealDates):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Self:
            return cls.fromtimestamp(now(), tz)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.fromtimestamp(now(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Self:
            return cls.now()

    class ClockDate(datetime.date, metaclass=OfRealDates):
        @classmethod
        def today(cls) -> Self:
            return cls.fromtimestamp(now())

    module = _copy(datetime)
    vars(module).update({"datetime": ClockDateTime, "date": ClockDate})
    return module


def _copy(module: ModuleType) -> ModuleType:
    copied = ModuleType(module.__name__, module.__doc__)
    vars(copied).update(vars(module))
    return copied
