"""Binding the port: a failure says what is wrong with the host or the port, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.http.sockets import listening_socket
from gateway.settings import Settings


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def bind_error(tmp_path: Path, **settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        listening_socket(Settings.model_validate({"directory": tmp_path, **settings}))
    return str(caught.value)


def test_a_free_port_is_bound(tmp_path: Path) -> None:
    with listening_socket(Settings(directory=tmp_path, port=0)) as bound:
        assert bound.getsockname()[1] > 0


def test_a_port_in_use_is_named(tmp_path: Path, used_port: int) -> None:
    message = bind_error(tmp_path, port=used_port)
    assert message == (
        f"127.0.0.1:{used_port} is in use: stop the other program, or choose another --port"
        " (0: a free one)"
    )


def test_a_host_name_that_does_not_resolve_is_named(tmp_path: Path) -> None:
    message = bind_error(tmp_path, host="nowhere.invalid")
    assert message.startswith("--host nowhere.invalid: no such name (")
    assert message.endswith("give an address of this machine, such as 127.0.0.1 or 0.0.0.0")


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    message = bind_error(tmp_path, host="192.0.2.1", port=0)
    assert message.startswith("--host 192.0.2.1 is not an address of this machine")
