// The page of one upload: what became of it, step by step.

import { announce, element } from "../dom.js";
import { decisionButtons } from "./activity-held.js";
import { setState } from "./activity-states.js";
import { address, get } from "./api.js";
import { nameElement, shownName } from "./files-names.js";
import { keepMoments, liveUpdates } from "./live.js";
import { notify, openPage } from "./shell.js";
import { t } from "./texts.js";
import { factsOf, fileLink } from "./timeline-facts.js";
import { stepsOf } from "./timeline-steps.js";
import { isSettled } from "./upload-watch.js";

openPage(() => t("Upload"), async (main, session) => {
  const id = decodeURIComponent(location.pathname.split("/").at(-1));
  const path = `uploads/${encodeURIComponent(id)}`;
  const status = await get(path).catch((error) => {
    if (error.status !== 404) throw error;
    return null;
  });
  if (status) show(main, session, path, status);
  else main.append(nothing(id));
});

function nothing(id) {
  return element("section", { class: "notice" },
    element("h2", {}, t("No upload of this id")),
    element("p", { class: "path" }, shownName(id)),
    element("p", {}, t("The address may be wrong, or it is not one of yours.")),
    element("p", {}, t("What was stored is told until --retention has passed after its end; what failed, as long as it is among the latest 1,000 of a process that has not been restarted since.")),
    element("p", {}, element("a", { href: address("uploads") }, t("Latest uploads"))));
}

function show(main, session, path, first) {
  const tag = element("span", {});
  const name = element("h2", {});
  const actions = element("div", { class: "row" });
  const facts = element("div", {});
  const list = element("ol", { class: "timeline" });
  const liveState = element("div", { class: "live-place" });
  const page = { session, operator: session.role === "operator", again, open: new Set() };
  let live = null;
  let shown = "";

  function draw(status) {
    const text = JSON.stringify(status);
    if (text === shown) return;
    const told = shown && status.state !== JSON.parse(shown).state;
    shown = text;
    name.replaceChildren(nameElement(status.path.split("/").at(-1) || status.path));
    setState(tag, status.state);
    if (told) announce(tag.textContent);
    redraw(actions, [fileLink(status, session), page.operator && status.state === "held" && decisionButtons(status, again)]);
    redraw(facts, [factsOf(status)]);
    redraw(list, stepsOf(status, page));
    if (isSettled(status)) end();
    else begin();
  }
  function begin() {
    if (live) return;
    live = liveUpdates(path, draw, { sparse: true });
    liveState.replaceChildren(live);
  }
  function end() {
    live?.end();
    live = null;
    liveState.replaceChildren(element("p", { class: "muted" }, t("Nothing more happens to it by itself.")));
  }
  async function again() {
    try {
      draw(await get(path));
    } catch (error) {
      notify(t(error.message), { kind: "bad" });
    }
  }
  main.append(
    element("p", { class: "muted back" }, element("a", { href: address("uploads") }, t("Activity"))),
    element("div", { class: "toolbar" }, element("div", { class: "timeline-name" }, name, tag), liveState),
    actions, facts, element("section", { class: "stack", "aria-label": t("What became of it") }, list));
  draw(first);
  keepMoments();
}

// Keeps the focus where an element is drawn anew: on what has the same key.
function redraw(place, content) {
  const key = document.activeElement?.closest?.("[data-key]");
  const focused = key && place.contains(key) ? key.dataset.key : null;
  place.replaceChildren(...content.flat().filter(Boolean));
  if (focused) [...place.querySelectorAll("[data-key]")].find((other) => other.dataset.key === focused)?.focus();
}
