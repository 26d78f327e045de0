"""Dropping tracebacks: of an exception, its causes and contexts, and of a group."""

from __future__ import annotations

from gateway.http.tracebacks import drop_tracebacks


def _raised() -> BaseException:
    try:
        try:
            raise ValueError("cause")
        except ValueError as cause:
            raise ExceptionGroup("group", [_caught(KeyError("inner"))]) from cause
    except ExceptionGroup as error:
        return error


def _caught(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_the_tracebacks_of_a_whole_chain_are_dropped() -> None:
    error = _raised()
    assert isinstance(error, ExceptionGroup)
    cause, inner = error.__cause__, error.exceptions[0]
    assert cause is not None
    drop_tracebacks(error)
    assert [one.__traceback__ for one in (error, cause, inner)] == [None] * 3


def test_a_chain_that_leads_back_to_itself_ends() -> None:
    first, second = _caught(ValueError()), _caught(KeyError())
    first.__context__, second.__cause__ = second, first
    drop_tracebacks(first)
    assert first.__traceback__ is second.__traceback__ is None
    drop_tracebacks(None)
