"""Tells by its code whether a handler can ever wait: one that cannot needs no task.

A task costs a microsecond, and a turn of the executor's loop, in which its thread has to wait for the
interpreter once more. Most handlers that admit uploads await `handle.terminate()` alone, which is ready
at once. What is not recognized counts as able to wait.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, Final

_SUSPENDING: Final = frozenset({"SEND", "YIELD_VALUE", "YIELD_FROM"})
"""What `await`, `async for` and `async with` are compiled to, an `await` to one of each of the first."""

_READY_AT_ONCE: Final = frozenset({"terminate", "progress"})
"""The methods of a `Handle` whose awaitables never suspend."""

_JUMPS: Final = frozenset((*dis.hasjrel, *dis.hasjabs))


def never_suspends(function: Callable[..., Any]) -> bool:
    """Tell whether an `async def` awaits nothing but the methods of its second parameter, a `Handle`."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and _code_never_suspends(code)


@functools.lru_cache(maxsize=1024)
def _code_never_suspends(code: CodeType) -> bool:
    flags = code.co_flags & (inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)
    if flags != inspect.CO_COROUTINE:
        return False
    steps = list(dis.get_instructions(code))
    suspending = sum(step.opname in _SUSPENDING for step in steps)
    return suspending == 0 or suspending == 2 * _awaits_of_handle(code, steps)


def _awaits_of_handle(code: CodeType, steps: Sequence[dis.Instruction]) -> int:
    """Count the awaits of the form `await handle.terminate(...)`, as CPython 3.11 compiles them."""
    if code.co_argcount < 2:
        return 0
    handle = code.co_varnames[1]
    if any(_changes(step, handle) for step in steps):
        return 0
    return sum(
        first.opname == "LOAD_FAST"
        and first.argval == handle
        and method.opname == "LOAD_METHOD"
        and method.argval in _READY_AT_ONCE
        and _is_awaited(steps[position + 2 :])
        for position, (first, method) in enumerate(itertools.pairwise(steps))
    )


def _changes(step: dis.Instruction, handle: str) -> bool:
    """Whether a step may give the variable another value, or the handle another method."""
    if step.opname in {"STORE_FAST", "DELETE_FAST"}:
        return bool(step.argval == handle)
    return step.opname == "STORE_ATTR" and step.argval in _READY_AT_ONCE


def _is_awaited(steps: Sequence[dis.Instruction]) -> bool:
    """Whether the call of the method that was just loaded is awaited at once.

    Its own `PRECALL` is the one at which the stack holds its arguments and no more.
    """
    depth = 0
    for position, step in enumerate(steps):
        if step.opcode in _JUMPS or step.is_jump_target:
            return False
        if step.opname == "PRECALL" and step.arg == depth:
            following = [after.opname for after in steps[position + 1 : position + 3]]
            return following == ["CALL", "GET_AWAITABLE"]
        depth += dis.stack_effect(step.opcode, step.arg)
    return False
