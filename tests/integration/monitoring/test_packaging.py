"""The dashboard and the rules of `packaging/`, against a real gateway and a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.harness import GatewayProcess, get, put, wait_until
from tests.support.prometheus import prometheus
from tests.support.routing.proxying import answer_all, upstream
from tests.support.routing.scripted import route, write

DASHBOARD: Final = PROJECT / "packaging/grafana/upload-gateway.json"
RULES: Final = PROJECT / "packaging/prometheus/upload-gateway.rules.yaml"
RULE_TESTS: Final = PROJECT / "packaging/prometheus/upload-gateway.rules.test.yaml"

VARIABLES: Final = {"$__rate_interval": "1m", "$instance": ".*", "$route": ".*"}

ALWAYS_THERE: Final = (
    "Requests by route", "Latency: 95 % by route", "Upstream latency: 95 %", "Upstreams in use",
    "Uploads by outcome", "Bytes", "Disk", "Handler runs by outcome", "Processes that answer",
)  # fmt: skip

HANDLER: Final = "name: works\nevent: APIGW.OnFileUploaded\nscript: |\n  async def works(e, h): pass\n"


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title and each query of the dashboard's panels."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def names_in(text: str) -> set[str]:
    """Return the metrics of the gateway that a query names; those of recording rules have a colon."""
    return set(re.findall(r"(?<![:\w])gateway_\w+", text))


def leads_to(authority: str) -> str:
    text = route("/r/{rest:path}", more="name: orders\n")
    return text.replace("upstreams: []", f"upstreams: ['{authority}']")


async def use(gateway: GatewayProcess) -> None:
    """Upload, and ask the route."""
    assert (await put(gateway, "/upload/a", b"123")).status in {200, 201}
    assert (await get(gateway, "/r/a")).status == 200


@pytest.mark.parametrize("words", [("check", "rules", RULES), ("test", "rules", RULE_TESTS)])
def test_promtool_accepts_the_rules_and_their_tests(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_says_what_it_is_about_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 10
    for rule in alerts:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_the_dashboard_has_panels_that_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


async def test_every_metric_that_they_name_is_one_of_the_gateway(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to(up.authority))
        gateway = gateway_process("--auth", "none", "--processes", "2", "--plugins", str(folder))
        text = (await get(gateway, "/-/metrics")).body.decode()
    there = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        there |= (
            {f"{name}_{part}" for part in ("bucket", "count", "sum")} if kind == "histogram" else {name}
        )
    named = {name for _, query in panels() for name in names_in(query)}
    named |= {name for rule in rules() for name in names_in(rule["expr"])}
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    named |= {name for each in variables for name in names_in(str(each["query"]))}
    assert named - there == set()


async def test_a_prometheus_evaluates_every_query_and_every_rule(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to(up.authority), HANDLER)
        gateway = gateway_process("--auth", "none", "--plugins", str(folder))
        await use(gateway)
        target = gateway.url.removeprefix("http://")
        async with prometheus(tmp_path, target, RULES) as server:

            async def evaluated() -> bool:
                groups = (await server.ask("rules"))["groups"]
                found = [rule["health"] for group in groups for rule in group["rules"]]
                assert "err" not in found
                return found == ["ok"] * len(rules())

            async def is_seen() -> Any:
                await use(gateway)
                return await server.query('rate(gateway_requests_total{status="200"}[1m]) > 0')

            await wait_until(is_seen)
            await wait_until(evaluated)
            for title, query in panels():
                for name, value in VARIABLES.items():
                    query = query.replace(name, value)
                samples = await server.query(query)
                assert samples is not None, (title, query)
                assert samples or title not in ALWAYS_THERE, (title, query)
            assert await server.query('ALERTS{alertstate="firing"}') == []
