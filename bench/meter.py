"""Measures layers: wraps functions of the gateway, and counts the processor time that each one takes.

The time of a layer is that of its functions without that of other layers that they call. A wrapper costs
about a microsecond; what it adds is measured with a function that does nothing. `net_seconds` subtracts
it, and whatever else made a measured run slower than one that was not measured.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

CALIBRATION_CALLS: Final = 20_000


@dataclass
class Spent:
    """What one layer took in one thread: seconds with the wrappers, calls, measured calls in them."""

    seconds: float = 0.0
    calls: float = 0
    inner_calls: float = 0


Counted = Mapping[tuple[str, str], Spent]
"""By the name of the thread and of the layer."""


class _Thread(threading.local):
    """What one thread is in: for each running function the time and number of measured calls in it."""

    def __init__(self) -> None:
        self.running: list[list[float]] = []


@dataclass
class Meter:
    """The layers and what they have taken, by the name of the thread and of the layer."""

    spent: dict[tuple[str, str], Spent] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    inside: float = 0.0
    """Seconds of a wrapper that fall into its own measurement."""
    outside: float = 0.0
    """Seconds of a wrapper that fall into that of its caller."""
    _thread: _Thread = field(default_factory=_Thread)

    @contextmanager
    def measuring(self, layers: Mapping[str, Iterable[str]]) -> Iterator[None]:
        """Wrap the functions of each layer: "package.module:function" or "package.module:Class.method".

        A name that does not exist is noted in `missing` and left out.
        """
        self._calibrate()
        restore: list[Callable[[], None]] = []
        try:
            for layer, names in layers.items():
                for name in names:
                    try:
                        restore += self._wrap_named(layer, name)
                    except (ImportError, AttributeError):
                        self.missing.append(name)
            yield
        finally:
            for undo in restore:
                undo()

    def per_request(self, requests: int) -> Counted:
        """Return what was counted, for each of so many requests; forget it."""
        counted = {
            key: Spent(spent.seconds / requests, spent.calls / requests, spent.inner_calls / requests)
            for key, spent in self.spent.items()
        }
        self.reset()
        return counted

    def net_seconds(
        self, counted: Counted, measured: Mapping[str, float], unmeasured: Mapping[str, float]
    ) -> dict[tuple[str, str], float]:
        """Return the seconds of each layer in a run without wrappers.

        `measured` and `unmeasured` are the seconds of each thread with and without them.
        """
        wrappers: dict[str, float] = {}
        for (thread, _), spent in counted.items():
            cost = spent.calls * (self.inside + self.outside)
            wrappers[thread] = wrappers.get(thread, 0.0) + cost
        net = {}
        for (thread, layer), spent in counted.items():
            expected = unmeasured.get(thread, 0.0) + wrappers[thread]
            slower = measured[thread] / expected if measured.get(thread) and expected else 1.0
            own = spent.calls * self.inside + spent.inner_calls * self.outside
            net[thread, layer] = max(0.0, spent.seconds / slower - own)
        return net

    def reset(self) -> None:
        """Forget what was counted."""
        self.spent.clear()

    def _calibrate(self) -> None:
        nothing = self.wrap("calibration", lambda: None)
        started = time.thread_time()
        for _ in range(CALIBRATION_CALLS):
            nothing()
        whole = (time.thread_time() - started) / CALIBRATION_CALLS
        self.inside = sum(spent.seconds for spent in self.spent.values()) / CALIBRATION_CALLS
        self.outside = whole - self.inside
        self.reset()

    def wrap(self, layer: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with its processor time counted."""
        thread, spent = self._thread, self.spent

        @functools.wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:
            running = thread.running
            running.append([0.0, 0])
            started = time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                took = time.thread_time() - started
                inner, calls = running.pop()
                if running:
                    running[-1][0] += took
                    running[-1][1] += 1
                key = (threading.current_thread().name, layer)
                entry = spent.get(key) or spent.setdefault(key, Spent())
                entry.seconds += took - inner
                entry.calls += 1
                entry.inner_calls += calls

        return measured

    def _wrap_named(self, layer: str, name: str) -> list[Callable[[], None]]:
        module_name, _, path = name.partition(":")
        module = importlib.import_module(module_name)
        owner_path, _, attribute = path.rpartition(".")
        if owner_path:
            owner = getattr(module, owner_path)
            original = inspect.getattr_static(owner, attribute)
            return [_replace(owner, attribute, original, self._wrapped(layer, original))]
        original = getattr(module, attribute)
        wrapped = self._wrapped(layer, original)
        # Other modules have imported the function by its name.
        users = [m for n, m in list(sys.modules.items()) if n.partition(".")[0] == "gateway"]
        return [
            _replace(user, key, original, wrapped)
            for user in users
            for key, value in list(vars(user).items())
            if value is original
        ]

    def _wrapped(self, layer: str, original: Any) -> Any:
        if isinstance(original, staticmethod | classmethod):
            return type(original)(self.wrap(layer, original.__func__))
        if not inspect.isfunction(original) or inspect.iscoroutinefunction(original):
            raise AttributeError("not a plain function")
        return self.wrap(layer, original)


def _replace(owner: Any, attribute: str, original: Any, wrapped: Any) -> Callable[[], None]:
    inherited = isinstance(owner, type) and attribute not in vars(owner)
    setattr(owner, attribute, wrapped)
    if inherited:
        return lambda: delattr(owner, attribute)
    return lambda: setattr(owner, attribute, original)
