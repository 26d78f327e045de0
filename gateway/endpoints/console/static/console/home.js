// The page `home`: what goes on, and what needs attention. Those who may only upload are led to do so.

import { element } from "../dom.js";
import { API, address, follow, get, onReturn } from "./api.js";
import { attention } from "./attention.js";
import { sparkline } from "./chart.js";
import { shownName } from "./files-names.js";
import { bytes, duration, moment, speed } from "./format.js";
import { openPage } from "./shell.js";
import { number, t, tn } from "./texts.js";

const STATUS_INTERVAL = 15000; // milliseconds: the counts of a long queue cost the gateway some work
const SECONDS = 60; // of the line of bytes
const LATEST = 6;

openPage(() => t("Overview"), async (main, session) => {
  if (session.role !== "operator") return location.replace(new URL("..", API));
  const cards = makeCards();
  const facts = element("p", { class: "muted" });
  const needs = attention();
  const latest = element("section", { class: "card", "aria-labelledby": "latest" });
  main.append(element("h2", {}, t("Overview")), facts, needs, cards.place, latest);

  async function load() {
    const status = await get("status");
    const up = (Date.now() - new Date(status.started)) / 1000;
    facts.textContent = t("Version {version} at {url}, up {time}", { version: status.version, url: status.url, time: duration(up) });
    needs.show(status, null);
    cards.show(status);
  }
  await load();
  const again = () => load().catch(() => {}); // the banner says that the gateway is away
  setInterval(() => document.hidden || again(), STATUS_INTERVAL);
  onReturn(again);
  follow("live", {}, (snapshot) => {
    cards.showLive(snapshot);
    showLatest(latest, snapshot.latest);
  });
});

// -- the cards

function card(path, title) {
  const figure = element("p", { class: "figure" }, "–");
  const note = element("p", { class: "muted" });
  const place = element("a", { class: "card", href: address(path) }, element("h3", {}, title), figure, note);
  return { place, figure, note };
}

function makeCards() {
  const uploads = card("uploads", t("Uploads on their way"));
  const events = card("events", t("Deliveries that wait"));
  const disk = card("status", t("Free disk space"));
  const routes = card("plugins", t("Plugins"));
  const line = sparkline([], { label: t("Bytes per second"), format: speed });
  const rates = [];
  uploads.place.append(line);
  return {
    place: element("div", { class: "grid overview" }, [uploads, events, disk, routes].map(({ place }) => place)),
    show(status) {
      const count = (state) => (status.deliveries ?? []).filter((row) => row.state === state).reduce((sum, row) => sum + row.count, 0);
      const all = (status.deliveries ?? []).reduce((sum, row) => sum + row.count, 0);
      events.figure.textContent = number(all - count("dead"));
      events.note.textContent = count("dead") ? tn("{count} dead", "{count} dead", count("dead")) : t("none is dead");
      if (status.disk) {
        disk.figure.textContent = bytes(status.disk.free);
        disk.note.textContent = status.disk.accepts_uploads ? t("uploads leave {size} free", { size: bytes(status.disk.kept_free) }) : t("uploads are refused");
      }
      const kinds = Object.values(status.plugins?.kinds ?? {}).reduce((sum, each) => sum + each, 0);
      routes.figure.textContent = number(kinds);
      routes.note.textContent = tn("loaded from {count} file", "loaded from {count} files", status.plugins?.files ?? 0);
    },
    showLive(snapshot) {
      const rate = snapshot.rates?.bytes_per_second ?? 0;
      rates.push(rate);
      if (rates.length > SECONDS) rates.shift();
      uploads.figure.textContent = number(snapshot.active_count);
      uploads.note.textContent = speed(rate);
      line.draw(rates);
    },
  };
}

// -- the latest uploads

const STATES = {
  stored: [() => t("stored"), "good"],
  held: [() => t("held"), "warn"],
  rejected: [() => t("rejected"), "warn"],
  failed: [() => t("failed"), "bad"],
};

function showLatest(place, uploads) {
  const shown = uploads.slice(0, LATEST);
  const key = JSON.stringify([shown.map(({ upload_id: id, state }) => id + state), Math.floor(Date.now() / 10000)]);
  if (place.dataset.shown === key || place.contains(document.activeElement)) return;
  place.dataset.shown = key;
  const title = element("div", { class: "toolbar" }, element("h3", { id: "latest" }, t("Latest uploads")),
    element("a", { href: address("uploads") }, t("All activity")));
  place.replaceChildren(title, shown.length === 0
    ? element("p", { class: "muted" }, t("No upload has ended lately."), " ", element("a", { href: new URL("..", API) }, t("Upload a file")))
    : element("ul", { class: "latest" }, shown.map((upload) => {
      const [label, level] = STATES[upload.state] ?? [() => upload.state, ""];
      return element("li", {},
        element("a", { href: address(`uploads/${encodeURIComponent(upload.upload_id)}`) }, element("bdi", {}, shownName(upload.path))),
        element("span", { class: `tag ${level}` }, label()),
        element("span", { class: "muted" }, bytes(upload.bytes)),
        moment(upload.ended));
    })));
}
