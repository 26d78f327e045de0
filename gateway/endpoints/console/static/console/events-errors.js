// Dead deliveries in groups: equal errors of a handler together, each group with its actions.

import { element } from "../dom.js";
import { get } from "./api.js";
import { actionName, change } from "./events-actions.js";
import { deliveries, eventAddress, listAddress, readable } from "./events-model.js";
import { moment } from "./format.js";
import { number, t, tn } from "./texts.js";

const SHOWN = 10; // groups that are shown at first
const PAUSE = 10000; // milliseconds between two times that the page groups by itself

/**
 * Return the section of dead deliveries. `follow(dead)` groups anew where their number has changed. `choose(filters)`
 * shows the deliveries of a group; `changed()` is called after an action.
 */
export function deadDeliveries({ choose, changed }) {
  const heading = element("h3", { id: "dead-deliveries", tabindex: "-1" }, t("Dead deliveries by error"));
  const note = element("p", { class: "muted" });
  const list = element("ul", { class: "groups" });
  const job = element("div", {});
  const failure = element("p", { class: "failure", role: "alert" });
  const all = element("button", { type: "button", class: "plain", hidden: true, onclick: () => { whole = true; draw(); } });
  const place = element("section", { class: "stack tight", "aria-labelledby": "dead-deliveries", hidden: true }, heading, note, job, failure, list, all);
  let answer = null;
  let whole = false;
  let counted = 0;
  let asked = -PAUSE;
  let busy = false;

  place.follow = (dead) => {
    if (dead === 0) {
      if (!place.contains(document.activeElement) && !busy) place.hidden = true;
      if (counted > 0) show({ groups: [], read: 0, other: 0, complete: true });
      counted = 0;
    } else if (dead !== counted && performance.now() - asked > PAUSE) {
      counted = dead;
      place.refresh();
    }
  };

  place.refresh = async () => {
    asked = performance.now();
    try {
      show(await get("events/errors"));
      failure.replaceChildren();
    } catch (error) {
      failure.textContent = t(error.message);
      place.hidden = false;
      counted = -1;
    }
  };

  function show(groups) {
    if (JSON.stringify(groups) === JSON.stringify(answer)) return;
    answer = groups;
    draw();
  }

  function draw() {
    const { groups, other, complete, read } = answer;
    place.hidden = groups.length === 0 && !place.contains(document.activeElement);
    note.textContent = [
      complete ? "" : t("There are more: the oldest {count} are grouped.", { count: number(read) }),
      other ? t("{count} are in smaller groups that are not listed.", { count: number(other) }) : "",
      groups.length === 0 ? t("Nothing is dead.") : "",
    ].filter(Boolean).join(" ");
    const focus = focused(list);
    const shown = groups.slice(0, whole ? groups.length : SHOWN);
    list.replaceChildren(...shown.map(item));
    all.hidden = shown.length === groups.length;
    all.textContent = tn("Show all {count} group", "Show all {count} groups", groups.length);
    if (focus) ([...list.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focus) ?? heading).focus();
  }

  function item(group) {
    const key = JSON.stringify([group.handler, group.error]);
    const filters = { state: "dead", handler: group.handler, error: group.error };
    const button = (verb, kind) => element("button", {
      type: "button", class: kind, "data-key": `${verb} ${key}`, onclick: () => act(verb, group),
      "aria-label": t("{action}: {deliveries} of {handler}", { action: actionName(verb), deliveries: deliveries(group.count), handler: group.handler }),
    }, actionName(verb));
    return element("li", { class: "card group" },
      element("p", { class: "count" }, element("strong", {}, number(group.count)), element("bdi", { class: "muted" }, group.handler)),
      element("div", { class: "what" },
        element("code", { class: "error" }, element("bdi", {}, readable(group.error) || t("No error is noted"))),
        element("p", { class: "muted" },
          t("newest"), " ", moment(group.newest), " · ", t("oldest"), " ", moment(group.oldest), " · ",
          element("a", { href: eventAddress(group.event_id) }, t("one of them")), " · ",
          element("a", { href: listAddress(filters), "data-key": `show ${key}`, onclick: (event) => choose(filters, event) }, t("all of them")))),
      element("div", { class: "row actions" }, button("retry", "plain small"), button("drop", "plain danger small")));
  }

  async function act(verb, group) {
    const selection = { state: "dead", handler: group.handler, error: group.error };
    busy = true;
    const count = await change(verb, {
      selections: [selection], total: answer.complete ? group.count : null, atLeast: answer.complete ? 0 : group.count - 1,
      handlers: [group.handler], error: group.error,
    }, job);
    busy = false;
    if (count === null) return;
    heading.focus();
    await changed();
  }
  return place;
}

function focused(list) {
  return list.contains(document.activeElement) ? document.activeElement.dataset.key ?? "gone" : null;
}
