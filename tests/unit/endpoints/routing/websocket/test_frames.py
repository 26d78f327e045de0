"""Where frames begin and end, however their bytes are cut into pieces."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from gateway.endpoints.routing.websocket.frames import FrameScanner, close_frame

SIZES = st.one_of(st.integers(0, 130), st.sampled_from([125, 126, 65535, 65536]))
DATA = st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]), SIZES)
CONTROL = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.integers(0, 125))
FRAMES = st.builds(
    lambda frame, masked: Frame(frame[0], bytes(frame[1])).serialize(mask=masked),
    DATA | CONTROL,
    st.booleans(),
)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@given(st.lists(FRAMES, min_size=1, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_boundaries_are_those_of_the_frames(frames: list[bytes], cuts: list[int]) -> None:
    data, scanner, place = b"".join(frames), FrameScanner(), 0
    ends = {0, *accumulate(len(frame) for frame in frames)}
    for piece in _cut(data, cuts):
        assert scanner.feed(piece) == len(piece)
        place += len(piece)
        assert scanner.at_boundary == (place in ends)
    assert not scanner.closed


@given(st.lists(FRAMES, min_size=1, max_size=4), st.lists(st.integers(0, 1 << 20), min_size=1))
def test_it_stops_at_the_next_boundary(frames: list[bytes], cuts: list[int]) -> None:
    data, scanner, place = b"".join(frames), FrameScanner(), 0
    ends = [0, *accumulate(len(frame) for frame in frames)]
    for piece in _cut(data, cuts):
        if scanner.at_boundary:
            assert scanner.feed(piece) == len(piece)
        else:
            following = min(end for end in ends if end > place)
            assert scanner.feed(piece, to_boundary=True) == min(following - place, len(piece))
            if following < place + len(piece):
                return
        place += len(piece)


@given(st.lists(st.integers(0, 40), max_size=6), st.booleans())
def test_a_close_frame_is_seen(cuts: list[int], masked: bool) -> None:
    data = close_frame(1001, "the server stops", masked=masked)
    scanner = FrameScanner()
    for piece in _cut(Frame(Opcode.TEXT, b"last").serialize(mask=masked) + data, cuts):
        scanner.feed(piece)
    assert scanner.closed
    assert scanner.at_boundary


def test_a_close_frame_of_ours_is_one_to_another_library() -> None:
    close = Close(1001, "the server stops")
    assert close_frame(1001, "the server stops", masked=False) == Frame(
        Opcode.CLOSE, close.serialize()
    ).serialize(mask=False)
    masked = close_frame(1001, "the server stops", masked=True)
    mask, payload = masked[2:6], masked[6:]
    unmasked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    assert (masked[:2], unmasked) == (bytes([0x88, 0x80 | len(payload)]), close.serialize())


def test_what_is_no_frame_moves_boundaries_only() -> None:
    scanner = FrameScanner()
    assert scanner.feed(b"\xff" * 10) == 10
    assert scanner.feed(b"GET / HTTP/1.1\r\n\r\n" * 100) == 1800
    assert not scanner.at_boundary
