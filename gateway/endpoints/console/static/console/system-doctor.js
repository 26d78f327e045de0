// What the checks of `gateway doctor` find about the running server.

import { announce, element } from "../dom.js";
import { get } from "./api.js";
import { ago } from "./format.js";
import { t, tn } from "./texts.js";

const WORDS = { FAIL: ["bad", () => t("Fault")], warn: ["warn", () => t("Warning")], ok: ["good", () => t("Good")] };

/** Return the section; `section.latest()` is what was found last, null before. */
export function doctorSection() {
  const button = element("button", { type: "button", class: "plain small", onclick: () => examine(true) }, t("Check again"));
  const when = element("span", { class: "muted" });
  const body = element("div", { class: "stack tight" });
  const place = element("section", { class: "stack tight", "aria-label": t("Checks") },
    element("div", { class: "toolbar" }, element("h3", {}, t("Checks")), when, button),
    element("p", { class: "muted" }, t("What gateway doctor finds, with the settings of this server.")), body);
  let answer = null;

  async function examine(anew) {
    button.disabled = true;
    when.textContent = t("The checks run …");
    try {
      answer = await get("doctor", { refresh: anew || undefined });
      show();
      if (anew) announce(summary());
    } catch (error) {
      body.replaceChildren(element("p", { class: "failure", role: "alert" }, t(error.message)));
    }
    button.disabled = false;
    tell();
  }
  function tell() {
    if (answer) when.textContent = t("{summary}, checked {ago}", { summary: summary(), ago: ago(new Date(answer.time)) });
    else if (!button.disabled) when.textContent = "";
  }
  function summary() {
    const bad = count("FAIL");
    const warned = count("warn");
    if (!bad && !warned) return t("no fault");
    return [bad && tn("{count} fault", "{count} faults", bad), warned && tn("{count} warning", "{count} warnings", warned)].filter(Boolean).join(", ");
  }
  function count(level) {
    return answer.findings.filter((finding) => finding.level === level).length;
  }
  function show() {
    const worst = answer.findings.filter((finding) => finding.level !== "ok").sort((a, b) => (a.level === "FAIL" ? 0 : 1) - (b.level === "FAIL" ? 0 : 1));
    const good = answer.findings.filter((finding) => finding.level === "ok");
    const before = body.querySelector("details")?.open;
    const details = element("details", { open: before || false },
      element("summary", {}, tn("{count} check is good", "{count} checks are good", good.length)), findingsList(good));
    body.replaceChildren(...[
      !answer.complete && element("p", { class: "hint" }, t("The checks did not come to their end: this is what they found so far.")),
      worst.length > 0 && findingsList(worst), good.length > 0 && details,
    ].filter(Boolean));
  }
  place.latest = () => answer;
  setInterval(() => { if (!button.disabled) tell(); }, 10_000);
  examine(false);
  return place;
}

function findingsList(findings) {
  return element("ul", { class: "findings" }, findings.map(({ level, text, advice }) => {
    const [kind, word] = WORDS[level] ?? ["", () => level];
    return element("li", {}, element("span", { class: `tag ${kind}` }, word()), element("div", {}, element("p", {}, text), advice && element("p", { class: "muted" }, advice)));
  }));
}
