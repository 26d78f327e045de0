// What needs attention, the worst first; in words, with where to go.

import { element } from "../dom.js";
import { address } from "./api.js";
import { bytes, moment } from "./format.js";
import { number, t, tn } from "./texts.js";

/** Return the section: `section.show(facts, snapshot)`. */
export function attention() {
  const list = element("ul", { class: "needs" });
  const place = element("section", { "aria-label": t("What needs attention") }, list);
  let shown = "";
  place.show = (facts, snapshot) => {
    const found = needsOf({ ...facts, silent_processes: snapshot?.silent_processes ?? facts.silent_processes });
    const text = JSON.stringify(found.map(([level, words]) => [level, words]));
    if (text === shown || list.contains(document.activeElement)) return;
    shown = text;
    list.replaceChildren(...(found.length ? found.map(item) : [item(["good", t("Nothing needs attention.")])]));
  };
  return place;
}

function item([level, text, more]) {
  return element("li", { class: `need ${level}` }, element("p", { dir: "auto" }, text), more);
}

/** Return `[level, text, element]` for each thing that needs attention. */
export function needsOf(facts) {
  const bad = (...rest) => ["bad", ...rest];
  const warn = (...rest) => ["warn", ...rest];
  return [
    ...facts.silent_processes.map((slot) => bad(t("Process {slot} does not answer. Its numbers are missing here; what it had begun is settled when it is back.", { slot }))),
    facts.disk && !facts.disk.accepts_uploads && bad(t("The disk is full: uploads are refused.")),
    ...(facts.plugins?.faults ?? []).map((fault) => bad(t("The last reload failed, nothing has changed: {fault}", { fault }), element("p", { class: "muted" }, moment(facts.plugins.reloaded)))),
    ...(facts.upstreams_down ?? []).map((down) => bad(upstreamText(down, facts.processes))),
    ...deadOf(facts.deliveries).map(([handler, count]) => bad(
      tn("{count} delivery to {handler} is dead.", "{count} deliveries to {handler} are dead.", count, { handler }),
      link(`events?state=dead&handler=${encodeURIComponent(handler)}`, t("Show")))),
    ...Object.entries(facts.unknown ?? {}).map(([name, reason]) => bad(t("Not known now: {name}. {reason}", { name, reason }))),
    ...(facts.paused ?? []).map((handler) => warn(t("The handler {handler} is paused.", { handler }), link("events", t("Show")))),
    facts.uploads.held > 0 && warn(tn("{count} upload is held.", "{count} uploads are held.", facts.uploads.held), link("uploads?state=held", t("Show"))),
    lately(facts.uploads),
    ...(facts.quotas ?? []).map((quota) => warn(quotaText(quota))),
    ...(facts.keys ?? []).map((key) => warn(t("The key {name} expires.", { name: key.name }), element("p", { class: "muted" }, moment(key.expires)))),
  ].filter(Boolean);
}

function link(path, text) {
  const [place, query] = path.split("?");
  return element("a", { href: address(place, Object.fromEntries(new URLSearchParams(query ?? ""))) }, text);
}

function lately({ failed, rejected }) {
  const parts = [
    failed && tn("{count} upload failed", "{count} uploads failed", failed),
    rejected && tn("{count} was rejected", "{count} were rejected", rejected),
  ].filter(Boolean);
  if (!parts.length) return null;
  return ["warn", t("In the last hour: {what}.", { what: parts.join(", ") }), link(`uploads?state=${failed ? "failed" : "rejected"}&since=3600`, t("Show"))];
}

function deadOf(deliveries) {
  return (deliveries ?? []).filter((row) => row.state === "dead").map((row) => [row.handler, row.count]);
}

function upstreamText(down, processes) {
  const routes = down.routes.join(", ") + (down.route_count > down.routes.length ? t(" and {count} more", { count: down.route_count - down.routes.length }) : "");
  return processes === 1
    ? t("The upstream {upstream} is out: requests or probes fail. Routes: {routes}.", { upstream: down.upstream, routes })
    : t("The upstream {upstream} is out in {count} of {processes} processes: requests or probes fail. Routes: {routes}.",
      { upstream: down.upstream, count: down.processes, processes, routes });
}

function quotaText({ rule, what, used, limit }) {
  const format = what.startsWith("bytes") ? bytes : number;
  const words = { bytes: t("stored"), files: t("files"), bytes_per_day: t("today"), requests: t("requests") };
  return t("The quota {rule} is nearly used: {used} of {limit} {what}.", { rule, used: format(used), limit: format(limit), what: words[what] ?? what });
}
