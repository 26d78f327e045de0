"""Drops the tracebacks of handled exceptions, so that no request leaves a reference cycle.

A body's reader, or a future, keeps the exception that ended it. Its traceback holds the frames that
were reading, and these hold the reader: such a ring, with a whole body in it, lives until the cyclic
garbage collector runs. Without the traceback there is no ring.
"""

from __future__ import annotations


def drop_tracebacks(error: BaseException | None) -> None:
    """Remove the tracebacks of `error` and of its causes and contexts, once nobody logs them."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        current.__traceback__ = None
        pending += (current.__cause__, current.__context__)
        if isinstance(current, BaseExceptionGroup):
            pending += current.exceptions
