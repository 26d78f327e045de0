"""The index of templates finds what overlaps, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.template_index import TemplateIndex
from gateway.domain.template_segments import overlap, parse_segments

TEMPLATES = st.builds(
    lambda names, rest: (
        "/" + "/".join([*(n.replace("#", str(at)) for at, n in enumerate(names)), *rest])
    ),
    st.lists(st.sampled_from(["a", "b", "{v#}"]), max_size=4),
    st.sampled_from([[], [""], ["{rest:path}"]]),
)


@given(first=TEMPLATES, others=st.lists(TEMPLATES, max_size=8))
def test_the_index_finds_the_templates_that_overlap_another(first: str, others: list[str]) -> None:
    index, parsed = TemplateIndex(), [parse_segments(text) for text in others]
    for number, segments in enumerate(parsed):
        index.add(segments, number)
    segments = parse_segments(first)
    found = sorted(index.overlapping(segments))
    assert found == [number for number, other in enumerate(parsed) if overlap(segments, other)]
