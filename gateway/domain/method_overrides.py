"""Other methods that a request names beside its own: tus 1.0.0 and many frameworks take it for those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

METHOD_HEADERS: Final = ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override")
METHOD_PARAMETER: Final = "_method"
"""What some frameworks read another method from."""

_LOWERED: Final = {name.lower(): name for name in METHOD_HEADERS}


class NamedMethod(NamedTuple):
    """A method, in capitals, and the header or parameter that names it."""

    place: str
    method: str


def named_methods(
    headers: Mapping[str, str], params: Mapping[str, Sequence[str]]
) -> Iterator[NamedMethod]:
    """Yield every method that a request names beside its own."""
    for name, value in headers.items():
        if (place := _LOWERED.get(name.lower())) is not None:
            yield NamedMethod(place, value.strip().upper())
    for value in params.get(METHOD_PARAMETER, ()):
        yield NamedMethod(METHOD_PARAMETER, value.strip().upper())
