// The page of the gateway itself: what it is, how it does, what needs attention.

import { copyButton, element } from "../dom.js";
import { get, onReturn } from "./api.js";
import { meter } from "./chart.js";
import { bytes, duration, moment } from "./format.js";
import { liveUpdates, setText } from "./live.js";
import { openPage } from "./shell.js";
import { attention } from "./attention.js";
import { doctorSection } from "./system-doctor.js";
import { ratesSection } from "./system-rates.js";
import { quotasSection } from "./system-quotas.js";
import { supportText } from "./system-support.js";
import { number, t } from "./texts.js";

const EACH = 10_000; // milliseconds between two reads of the facts

openPage(() => t("System"), async (main) => {
  const needs = attention();
  const rates = ratesSection();
  const cards = factCards();
  const doctor = doctorSection();
  const list = element("dl", { class: "facts" });
  let facts = null;
  let snapshot = null;

  async function load() {
    facts = await get("status");
    showAll();
  }
  function showAll() {
    if (!facts) return;
    needs.show(facts, snapshot);
    cards.show(facts, snapshot);
    showFacts(list, facts);
  }
  const live = liveUpdates("live", (now) => {
    snapshot = now;
    rates.show(now);
    cards.show(facts, now);
    if (facts) needs.show(facts, now);
  }, { onPause: (paused) => { if (!paused) load().catch(() => {}); } });
  await load();
  const again = () => { if (!live.isPaused() && !document.hidden) load().catch(() => {}); };
  setInterval(again, EACH);
  onReturn(again);
  main.append(
    element("div", { class: "toolbar" }, element("h2", {}, t("System")), live),
    needs, cards, rates,
    element("section", { class: "stack tight" },
      element("div", { class: "toolbar" }, element("h3", {}, t("This gateway")),
        copyButton(t("Copy for support"), () => supportText(facts, snapshot, doctor.latest()))),
      list),
    quotasSection(), doctor);
});

function factCards() {
  const uploads = card(t("Uploads on their way"));
  const waiting = card(t("Deliveries that wait"));
  const processes = card(t("Processes"));
  const disk = element("div", { class: "card" });
  let space = null;
  const place = element("div", { class: "grid pairs" }, uploads, waiting, processes, disk);
  place.show = (facts, snapshot) => {
    if (!facts) return;
    const { uploads: counts } = facts;
    uploads.show(snapshot ? snapshot.active_count : counts.in_flight ?? null, heldText(counts));
    const queue = snapshot && "queue" in snapshot ? snapshot.queue : undefined;
    waiting.show(queue ? sum(queue) : queue === null ? null : sumOf(facts.deliveries), queueText(queue), queue?.dead > 0);
    const silent = snapshot?.silent_processes ?? facts.silent_processes;
    processes.show(facts.processes, silent.length
      ? t("no answer of {names}", { names: silent.join(", ") }) : t("all answer"), silent.length > 0);
    if (!facts.disk) return disk.replaceChildren(element("h3", {}, t("Disk")), element("p", { class: "muted" }, t("unknown")));
    const used = facts.disk.size - facts.disk.free;
    if (!space) disk.replaceChildren(space = meter(used, facts.disk.size, t("Disk"), { format: bytes }),
      element("p", { class: "muted" }, " "));
    space.set(used, facts.disk.size);
    setText(disk.lastElementChild, facts.disk.accepts_uploads
      ? t("{free} free, of which {kept} stay free", { free: bytes(facts.disk.free), kept: bytes(facts.disk.kept_free) })
      : t("Uploads are refused: the disk is full"));
    disk.lastElementChild.classList.toggle("bad", !facts.disk.accepts_uploads);
  };
  return place;
}

function card(title) {
  const figure = element("p", { class: "figure" }, "–");
  const note = element("p", { class: "muted" }, " ");
  const place = element("div", { class: "card" }, element("h3", {}, title), figure, note);
  place.show = (value, text, bad = false) => {
    setText(figure, value === null || value === undefined ? t("unknown") : String(value));
    setText(note, text || " ");
    note.classList.toggle("bad", bad);
  };
  return place;
}

function heldText(counts) {
  return [
    counts.held ? t("{count} held", { count: counts.held }) : "",
    counts.resumable ? t("{count} incomplete", { count: counts.resumable }) : "",
  ].filter(Boolean).join(", ");
}

function queueText(queue) {
  if (!queue) return "";
  const words = { ready: t("ready"), running: t("running"), delayed: t("to be tried again"), dead: t("dead") };
  return Object.entries(queue).map(([state, count]) => t("{count} {state}", { count: number(count), state: words[state] ?? state })).join(", ") || t("nothing waits");
}

function sum(queue) {
  return Object.entries(queue).reduce((total, [state, count]) => total + (state === "dead" ? 0 : count), 0);
}

function sumOf(rows) {
  return rows ? rows.reduce((total, row) => total + (row.state === "dead" ? 0 : row.count), 0) : null;
}

function showFacts(list, facts) {
  const started = new Date(facts.started);
  const plugins = facts.plugins && (Object.entries(facts.plugins.kinds).map(([kind, count]) => `${kind} ${count}`).join(", ") || t("none"));
  const rows = [
    [t("Version"), facts.version],
    [t("Runs for"), t("{time}, since {start}", { time: duration((Date.now() - started) / 1000), start: started.toLocaleString() })],
    [t("Address"), element("a", { href: facts.url }, facts.url)],
    facts.address !== facts.url && [t("On this machine"), facts.address],
    [t("Folder"), element("code", {}, facts.directory)],
    [t("Storage"), element("code", {}, facts.storage)],
    [t("Events"), element("code", {}, facts.events)],
    [t("Authorization"), facts.authorization],
    [t("Plugins"), plugins ? t("{kinds} (set {number})", { kinds: plugins, number: facts.plugins.set }) : t("unknown")],
    facts.plugins?.reloaded && [t("Last reload"), moment(facts.plugins.reloaded)],
  ];
  list.replaceChildren(...rows.filter(Boolean).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
