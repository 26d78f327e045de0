// How fast requests and uploads go, and how long requests take.

import { element } from "../dom.js";
import { sparkline } from "./chart.js";
import { speed } from "./format.js";
import { history, setText } from "./live.js";
import { number, t } from "./texts.js";

const GROUPS = { uploads: () => t("Uploads"), downloads: () => t("Downloads"), routes: () => t("All other requests") };

/** Return the section: `section.show(snapshot)`. */
export function ratesSection() {
  const charts = {
    bytes_per_second: chart(t("Received"), speed),
    requests_per_second: chart(t("Requests"), perSecond),
    errors: chart(t("Errors (5xx)"), perSecond),
  };
  const cells = new Map();
  const body = element("tbody", {}, Object.entries(GROUPS).map(([group, name]) => {
    const row = ["count", "p50", "p95", "p99"].map((key) => {
      const cell = element("td", { class: "number", "data-label": HEADS[key]() }, element("span", {}, "–"));
      cells.set(`${group} ${key}`, cell.firstChild);
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, name()), row);
  }));
  const table = element("table", { class: "rows", "aria-label": t("How long requests took in the last minute") },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, t("Requests")), Object.values(HEADS).map((head) => element("th", { scope: "col", class: "number" }, head())))),
    body);
  const place = element("section", { class: "stack" },
    element("div", { class: "grid thirds" }, Object.values(charts)),
    element("div", {}, element("h3", {}, t("How long requests took in the last minute")), table,
      element("p", { class: "muted" }, t("Times are upper bounds of a histogram: it took at most so long. Uploads and downloads depend on the speed of their clients."))));

  place.show = ({ rates }) => {
    if (!rates) return;
    charts.bytes_per_second.show(rates.bytes_per_second);
    charts.requests_per_second.show(rates.requests_per_second);
    charts.errors.show(rates.requests_per_second === null ? null : rates.by_status["5xx"] ?? 0);
    for (const group of Object.keys(GROUPS)) {
      const times = rates.durations[group];
      setText(cells.get(`${group} count`), times ? number(times.count) : "–");
      for (const key of ["p50", "p95", "p99"]) setText(cells.get(`${group} ${key}`), timeText(times, key));
    }
  };
  return place;
}

const HEADS = {
  count: () => t("Count"),
  p50: () => t("Half within"),
  p95: () => t("95 % within"),
  p99: () => t("99 % within"),
};

function timeText(times, key) {
  if (!times?.count) return "–";
  if (times[key] === null) return t("over 60 s");
  return times[key] < 1 ? t("{count} ms", { count: number(times[key] * 1000) }) : t("{count} s", { count: number(times[key]) });
}

function chart(title, format) {
  const figure = element("p", { class: "figure" }, "–");
  const line = sparkline([], { label: title, format });
  const keep = history();
  const card = element("div", { class: "card" }, element("h3", {}, title), figure, line);
  card.show = (value) => {
    setText(figure, value === null ? "–" : format(value));
    line.draw(keep(value));
  };
  return card;
}

function perSecond(value) {
  return `${number(value, { maximumFractionDigits: value < 10 ? 1 : 0 })}/s`;
}
