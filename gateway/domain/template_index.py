"""Finds, among many templates of paths, those that have a path in common with another one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.domain.template_segments import LITERAL, REST, Segments


@dataclass(slots=True)
class _TemplateNode:
    """The templates with the same first segments: those that end here, and those with a rest here."""

    literals: dict[str, _TemplateNode] = field(default_factory=dict)
    variable: _TemplateNode | None = None
    ends: list[int] = field(default_factory=list)
    rests: list[int] = field(default_factory=list)

    @property
    def children(self) -> Iterator[_TemplateNode]:
        """The templates by their next segment."""
        yield from self.literals.values()
        if self.variable is not None:
            yield self.variable


class TemplateIndex:
    """Templates by their segments, each with a number. A rest is the last segment of its template."""

    def __init__(self) -> None:
        self._root = _TemplateNode()

    def add(self, segments: Segments, number: int) -> None:
        """Add a template."""
        node = self._root
        for segment in segments:
            if segment.kind == REST:
                node.rests.append(number)
                return
            if segment.kind == LITERAL:
                node = node.literals.setdefault(segment.text, _TemplateNode())
            else:
                node.variable = node.variable or _TemplateNode()
                node = node.variable
        node.ends.append(number)

    def overlapping(self, segments: Segments) -> Iterator[int]:
        """Yield the numbers of the templates that match a path which this one matches, as `overlap`."""
        waiting = [(self._root, 0)]
        while waiting:
            node, at = waiting.pop()
            if at == len(segments):
                yield from node.ends
                continue
            yield from node.rests
            segment = segments[at]
            if segment.kind == REST:
                yield from _all_below(node)
            elif segment.kind == LITERAL:
                children = (node.literals.get(segment.text), node.variable)
                waiting += [(child, at + 1) for child in children if child is not None]
            else:
                waiting += [(child, at + 1) for child in node.children]


def _all_below(node: _TemplateNode) -> Iterator[int]:
    waiting = [*node.children]
    while waiting:
        below = waiting.pop()
        yield from below.ends
        yield from below.rests
        waiting += below.children
