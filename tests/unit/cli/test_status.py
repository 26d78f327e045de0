"""`gateway status` for people: lines of facts, and what needs attention."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.status import duration, fact_lines

NOW = 1_000_000.0
FACTS: dict[str, Any] = {
    "version": "1.2.3",
    "started": "1970-01-10T13:46:40Z",
    "url": "https://up.example",
    "address": "http://127.0.0.1:8080",
    "directory": "/srv/up",
    "processes": 3,
    "silent_processes": [],
    "storage": "file",
    "events": "journal",
    "authorization": "token",
    "uploads": {"in_flight": 2, "held": 0, "failed": 0, "rejected": 0},
    "deliveries": [],
    "paused": [],
    "disk": {"free": 5_000_000_000, "kept_free": 1, "accepts_uploads": True},
    "plugins": {"set": 1, "files": 2, "kinds": {"event handler": 2, "routing": 1}},
    "keys": [],
    "unknown": {},
}


def lines(**changes: Any) -> dict[str, tuple[str, str]]:
    return {name: (text, level) for name, text, level in fact_lines({**FACTS, **changes}, NOW)}


def test_a_gateway_without_trouble_shows_no_warning() -> None:
    shown = lines()
    assert shown["gateway"] == ("1.2.3 at https://up.example, up 2d", "good")
    assert shown["disk"] == ("5.0 GB free", "")
    assert shown["uploads"] == ("2 in flight, 0 held", "")
    assert shown["plugins"] == ("2 event handlers, 1 routing (set 1)", "")
    assert shown["handlers"] == ("nothing waits", "")
    assert {level for _, level in shown.values()} == {"", "good"}


def test_what_needs_attention_is_shown_with_what_to_do() -> None:
    waiting = {"handler": "thumbs", "oldest": "1970-01-12T13:45:40Z"}
    shown = lines(
        silent_processes=[2],
        uploads={"in_flight": 0, "resumable": 4, "held": 1, "failed": 2, "rejected": 3},
        deliveries=[{**waiting, "state": "ready", "count": 7}, {**waiting, "state": "dead", "count": 1}],
        paused=["thumbs"],
        disk={"free": 1000, "kept_free": 2000, "accepts_uploads": False},
        plugins={"set": 2, "files": 0, "faults": ["p.yaml:3: no"], "reloaded": "1970-01-12T13:46:00Z"},
        upstreams_down=[
            {"upstream": "10.0.0.7:80", "processes": 2, "routes": ["orders", "users"], "route_count": 9}
        ],
        quotas=[{"rule": "principal ann", "what": "bytes_per_day", "used": 9_000, "limit": 10_000}],
        keys=[{"name": "backup", "expires": "1970-01-14T13:46:40Z"}],
    )
    assert shown["processes"] == ("3, no answer of 2", "bad")
    assert shown["uploads"] == ("0 in flight, 4 resumable, 1 held", "warn")
    assert shown["last hour"][0].startswith("2 failed, 3 rejected: gateway uploads list")
    assert shown["handler"] == ("thumbs: 7 ready, 1 dead, the oldest 1m old", "bad")
    assert shown["paused"][0].endswith("gateway events resume --handler thumbs")
    assert shown["disk"] == ("1.0 kB free: uploads are refused", "bad")
    assert shown["last reload"][0].endswith(": p.yaml:3: no")
    out = "10.0.0.7:80 is out in 2 of 3 processes: requests or probes fail"
    assert shown["upstream"] == (f"{out}; routes orders, users and 7 more", "bad")
    assert shown["quota"] == ("principal ann: 9.0 kB of 10.0 kB a day (90 %)", "warn")
    assert shown["key"][0].startswith("backup expires in 2d (")


def test_what_is_not_known_is_named_and_never_shown_as_nothing() -> None:
    facts = {name: value for name, value in FACTS.items() if name not in {"deliveries", "disk"}}
    facts["unknown"] = {"deliveries": "NATS does not answer"}
    shown = {name: text for name, text, _ in fact_lines(facts, NOW)}
    assert shown["unknown"] == "deliveries: NATS does not answer"
    assert "disk" not in shown
    assert "handlers" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (59.9, "59s"), (3600, "1h"), (90_061, "1d 1h"), (3661, "1h 1m")]
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
