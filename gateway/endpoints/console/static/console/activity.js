// The page of what is uploaded now, and of what was uploaded.

import { element } from "../dom.js";
import { activeList } from "./activity-active.js";
import { heldSection, waitingSection } from "./activity-held.js";
import { latestSection } from "./activity-latest.js";
import { sparkline } from "./chart.js";
import { speed } from "./format.js";
import { history, liveUpdates, setText } from "./live.js";
import { openPage } from "./shell.js";
import { number, t, tn } from "./texts.js";

openPage(() => t("Activity"), (main, session) => {
  const operator = session.role === "operator";
  const cards = operator ? rateCards() : null;
  const active = activeList({ mine: !operator });
  const held = operator ? heldSection() : null;
  const waiting = waitingSection({ mine: !operator });
  const latest = latestSection(session);
  const silent = element("p", { class: "hint", role: "status", hidden: true });
  const live = liveUpdates("live", (snapshot) => {
    cards?.show(snapshot.rates);
    active.show(snapshot);
    showSilent(silent, snapshot);
    latest.note(snapshot.latest, live.isPaused());
    held?.note(snapshot);
    waiting.note(snapshot);
  });
  main.append(
    element("div", { class: "toolbar" }, element("h2", {}, t("Activity")), live),
    silent, ...[cards, active, held, waiting, latest].filter(Boolean),
  );
});

function showSilent(place, { silent_processes: silent }) {
  place.hidden = silent.length === 0;
  setText(place, silent.length ? tn(
    "Process {names} does not answer: its uploads are missing here.",
    "Processes {names} do not answer: their uploads are missing here.", silent.length, { names: silent.join(", ") }) : "");
}

function rateCards() {
  const received = rateCard(t("Received"), speed);
  const requests = rateCard(t("Requests"), perSecond);
  const stored = element("p", { class: "figure" }, "–");
  const failed = element("p", { class: "muted" }, " ");
  const uploads = element("div", { class: "card" }, element("h3", {}, t("Uploads in the last minute")), stored, failed);
  const place = element("div", { class: "grid thirds rates" }, received, requests, uploads);
  place.show = (rates) => {
    received.show(rates.bytes_per_second, "");
    requests.show(rates.requests_per_second, errorRate(rates.by_status));
    setText(stored, rates.uploads_per_minute === null ? "–" : number(rates.uploads_per_minute));
    const bad = rates.failed_per_minute ?? 0;
    setText(failed, rates.failed_per_minute === null ? " " : bad ? t("stored, and {count} failed", { count: number(bad) }) : t("stored, none failed"));
    failed.classList.toggle("bad", bad > 0);
  };
  return place;
}

function rateCard(title, format) {
  const figure = element("p", { class: "figure" }, "–");
  const note = element("p", { class: "muted" }, " ");
  const chart = sparkline([], { label: title, format });
  const keep = history();
  const card = element("div", { class: "card" }, element("h3", {}, title), figure, note, chart);
  card.show = (value, text) => {
    setText(figure, value === null ? "–" : format(value));
    setText(note, text || t("5 s average"));
    chart.draw(keep(value));
  };
  return card;
}

function errorRate(classes) {
  const bad = ["4xx", "5xx"].filter((name) => classes[name]).map((name) => `${name} ${perSecond(classes[name])}`);
  return bad.join(", ");
}

function perSecond(value) {
  return `${number(value, { maximumFractionDigits: value < 10 ? 1 : 0 })}/s`;
}
