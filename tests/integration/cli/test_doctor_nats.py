"""`gateway doctor` where events go through NATS."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.doctor import events
from gateway.events.nats.address import record_address
from gateway.settings import load
from tests.support.nats.servers import single


def lines(directory: Path, **values: str) -> list[str]:
    settings = load({"directory": str(directory), "advertise": "gw.example:80", **values}, {})
    return list(map(str, events.nats(settings)))


def test_servers_that_answer_and_servers_that_do_not_are_told_apart(tmp_path: Path) -> None:
    with single(tmp_path / "nats") as server:
        (line,) = lines(tmp_path, events=server.url)
        assert line.startswith("ok    nats-server 2.")
        assert list(server.ask("/jsz")) != []
        assert server.ask("/jsz")["streams"] == 0
        server.stop()
        (line,) = lines(tmp_path, events=server.url)
        assert line.startswith(f"FAIL  {server.url} is unavailable: NATS: ")


def test_servers_without_jetstream_or_with_small_messages_are_told(tmp_path: Path) -> None:
    with single(tmp_path / "nats", extra="max_payload: 16K") as server:
        (line,) = lines(tmp_path, events=server.url)
        assert "takes 16000 bytes an event" in line


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "deliveries in NATS may name old.example:80, and this gateway is gw.example:80"),
        ({"advertise": "old.example:80"}, None),
    ],
)
def test_an_address_that_has_changed_is_told_with_the_earlier_one(
    tmp_path: Path, values: dict[str, str], told: str | None
) -> None:
    (tmp_path / ".gateway").mkdir()
    assert record_address(tmp_path / ".gateway", "old.example:80") is None
    found = lines(tmp_path, events="nats://127.0.0.1:9", **values)[1:]
    assert [line for line in found if told is None or told not in line] == []
    assert len(found) == (told is not None)
