"""The parts that pages share, as a page would use them: dialogs, tables, charts, messages."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.integration.console.shell.visits import visiting
from tests.support.browser import BrowserVisit, check_looks
from tests.support.routing.scripted import Serve

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>\\u202Egpj.exe"


DIALOG = """
const main = document.getElementById("main");
let fails = true;
const open = async () => {
  window.answer = "open";
  window.answer = await ask({
    title: HOSTILE, text: ["First.", "Second."], action: "Make it",
    fields: [
      { name: "folder", label: "Folder", required: true, hint: "Below /upload/" },
      { name: "days", label: "Days", type: "number", value: 7, min: 1 },
      { name: "kind", label: "Kind", type: "select", options: [["a", "A"], ["b", "B"]], value: "b" },
      { name: "note", label: "Note", type: "textarea" },
      { name: "secret", label: "Ask for a password", type: "checkbox", hint: "Of all" },
    ],
    submit: async () => { if (fails) { fails = false; throw new Error("There is no such folder"); } },
  });
};
main.replaceChildren(element("button", { id: "open", onclick: open }, "Open"));
"""

TABLE = """
let broken = false;
window.breakNow = () => { broken = true; };
const load = async (cursor = 0) => {
  if (broken) { broken = false; throw new Error("The gateway does not answer."); }
  return { rows: [0, 1, 2].map((n) => cursor * 3 + n), next: cursor < 2 ? cursor + 1 : null };
};
const table = rows({
  label: "Things", load, empty: element("p", { class: "empty" }, "Nothing"),
  columns: [
    { title: "Name", kind: "head", cell: (n) => `${n} ${HOSTILE} ` + "long-".repeat(30) },
    { title: "Size", kind: "number", cell: (n) => String(n) },
    { title: "", kind: "fit", cell: () => element("button", { class: "plain small" }, "Retry") },
  ],
});
window.table = table;
document.getElementById("main").replaceChildren(
  element("h2", {}, "Things"), table,
  sparkline([1, 5, 2], { label: "Speed" }), meter(85, 100, "Disk"));
"""

MESSAGES = """
for (let n = 0; n < 9; n += 1) notify(t("Retried {n} {name}", { n, name: HOSTILE }));
notify("The gateway refused it", { kind: "bad" });
"""


async def use(visit: BrowserVisit, source: str, **parts: str) -> None:
    """Run a script on the page, with what it imports from the modules of the page."""
    files = await visit("script[type=module]").get_attribute("src")
    assert files is not None
    base = files.rpartition("/")[0]
    imports = "".join(
        f"const {{ {names} }} = await import(new URL('{base}/{module}.js', location.href));"
        for module, names in parts.items()
    )
    elements = f"const {{ element }} = await import(new URL('{base}/../dom.js', location.href));"
    hostile = f'const HOSTILE = "{HOSTILE}";'
    await visit.page.evaluate(f"(async () => {{ {hostile} {elements} {imports} {source} }})()")


async def test_a_dialog_asks_for_values_and_gives_the_focus_back(serve: Serve) -> None:
    gateway = await serve(auth="none")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/session")
        await use(
            visit,
            DIALOG,
            dialog="ask",
        )
        await visit("#open").click()
        await expect(visit.page.get_by_label("Folder")).to_be_focused()
        await visit.page.keyboard.press("Enter")  # it is required
        await expect(visit("dialog")).to_be_visible()
        await visit.page.keyboard.type("a")
        await visit.page.keyboard.press("Enter")
        await expect(visit("dialog [role=alert]")).to_have_text("There is no such folder")
        await check_looks(visit, keep="dialog")
        await visit.page.get_by_label("Ask for a password").check()
        await visit.page.get_by_role("button", name="Make it").click()
        await expect(visit("dialog")).to_have_count(0)
        await expect(visit("#open")).to_be_focused()
        values = {"folder": "a", "days": 7, "kind": "b", "note": "", "secret": True}
        assert await visit.page.evaluate("window.answer") == values
        await visit("#open").click()
        await visit.page.keyboard.press("Escape")
        await expect(visit("#open")).to_be_focused()
        assert await visit.page.evaluate("window.answer") is None
        assert visit.said == []


async def test_a_table_shows_more_and_more_and_never_loses_the_focus(serve: Serve) -> None:
    gateway = await serve(auth="none")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/session")
        await use(
            visit,
            TABLE,
            table="rows", chart="sparkline, meter",
        )  # fmt: skip
        body, more = visit("tbody tr"), visit.page.get_by_role("button", name="Show more")
        await expect(body).to_have_count(3)
        await expect(visit.page.get_by_role("img", name="Speed: now 2, at most 5")).to_be_visible()
        await expect(visit.page.get_by_role("meter", name="Disk")).to_have_attribute(
            "aria-valuenow", "85"
        )
        await more.focus()
        await visit.page.keyboard.press("Enter")
        await expect(body).to_have_count(6)
        await expect(more).to_be_focused()
        await expect(visit("#announcement")).to_have_text("6 shown")
        await visit.page.evaluate("breakNow()")
        await visit.page.keyboard.press("Enter")
        await expect(visit(".paged [role=alert]")).to_contain_text("The gateway does not answer.")
        await expect(body).to_have_count(6)
        await check_looks(visit, keep="table")
        await visit.page.get_by_role("button", name="Try again").click()
        await expect(body).to_have_count(9)
        await expect(more).to_be_hidden()
        await visit.page.get_by_role("button", name="Retry").nth(1).focus()
        await visit.page.evaluate("table.reload()")
        await expect(body).to_have_count(3)
        await expect(visit.page.get_by_role("button", name="Retry").nth(1)).to_be_focused()
        assert visit.said == []


async def test_what_failed_is_told_until_it_is_read(serve: Serve) -> None:
    gateway = await serve(auth="none")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("main h2")).to_have_text("Overview")
        await use(
            visit,
            MESSAGES,
            notify="notify",
            texts="t",
        )
        await expect(visit(".toast")).to_have_count(4)
        await expect(visit(".toast p").first).to_have_text(
            "Retried 6 <img src=x onerror=alert(1)>\ufffdgpj.exe"
        )
        await check_looks(visit, keep="toasts")
        await visit(".toast.bad button").focus()
        await visit.page.keyboard.press("Enter")
        await expect(visit(".toast.bad")).to_have_count(0)
        assert await visit.page.evaluate("document.activeElement.id") == "main"
        assert visit.said == []
