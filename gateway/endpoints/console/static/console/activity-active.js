// The uploads on their way: a row for each, brought up to date in place.

import { element } from "../dom.js";
import { errorWords, principalName, setState, uploadLink } from "./activity-states.js";
import { bytes, duration, speed } from "./format.js";
import { setText } from "./live.js";
import { t, tn } from "./texts.js";

const STAYS = 3000; // milliseconds for which a row tells how its upload ended

/**
 * Return the list: `list.show(snapshot)`. An upload that lasts for less than a second has no row, so that nothing
 * flickers where many small ones come. The place never becomes smaller: what is below it stays where it is.
 */
export function activeList({ mine }) {
  const head = element("h3", {}, t("On their way"));
  const count = element("span", { class: "muted active-count" });
  const list = element("ul", { class: "active-list" });
  const empty = element("p", { class: "muted active-empty" }, t("No upload is on its way."));
  const more = element("p", { class: "muted active-more" });
  const body = element("div", { class: "active-body" }, empty, list, more);
  const place = element("section", { class: "stack tight", "aria-label": t("On their way") },
    element("div", { class: "toolbar" }, head, count), body);
  const rows = new Map();
  let before = new Set();
  let height = 0;

  place.show = (snapshot) => {
    const lasting = snapshot.active.filter((upload) => before.has(upload.upload_id) || rows.has(upload.upload_id));
    before = new Set(snapshot.active.map((upload) => upload.upload_id));
    const ends = new Map(snapshot.latest.map((upload) => [upload.upload_id, upload]));
    for (const upload of lasting) {
      if (!rows.has(upload.upload_id)) list.prepend(added(upload));
      rows.get(upload.upload_id).show(upload);
    }
    for (const [id, row] of rows) if (!before.has(id)) end(id, row, ends.get(id));
    empty.hidden = rows.size > 0;
    setText(count, snapshot.active_count ? tn("{count} upload", "{count} uploads", snapshot.active_count) : "");
    const others = snapshot.active_count - lasting.length;
    setText(more, others > 0 && lasting.length ? tn("and {count} more", "and {count} more", others) : "");
    if (body.offsetHeight > height) body.style.minHeight = `${height = Math.min(body.offsetHeight, 448)}px`;
  };

  function added(upload) {
    const row = activeRow(upload, mine);
    rows.set(upload.upload_id, row);
    return row;
  }

  function end(id, row, ended) {
    if (row.endedAt === undefined) row.finish(ended);
    if (Date.now() - row.endedAt < STAYS || row.contains(document.activeElement)) return;
    row.remove();
    rows.delete(id);
  }
  return place;
}

function activeRow(upload, mine) {
  const tag = element("span", {});
  const bar = element("progress", { "aria-label": t("Progress") });
  const size = element("span", {});
  const rate = element("span", {});
  const left = element("span", {});
  const about = [mine || !upload.principal ? null : principalName(upload.principal), mine ? null : upload.remote, upload.protocol];
  const row = element("li", { class: "active-row" },
    element("div", { class: "active-name" }, uploadLink(upload), tag),
    element("p", { class: "muted active-about" }, about.filter(Boolean).join(" · ")),
    element("div", { class: "active-bar" }, bar),
    element("p", { class: "active-figures" }, size, rate, left));

  row.show = (now) => {
    delete row.endedAt;
    setState(tag, now.state);
    if (now.expected) {
      bar.max = now.expected;
      bar.value = now.bytes;
    } else bar.removeAttribute("value");
    setText(size, now.expected === null ? bytes(now.bytes) : t("{size} of {whole}", { size: bytes(now.bytes), whole: bytes(now.expected) }));
    setText(rate, now.rate === null ? "" : speed(now.rate));
    setText(left, timeLeft(now));
  };
  row.finish = (ended) => {
    row.endedAt = Date.now();
    if (!ended) return setText(left, t("ended"));
    setState(tag, ended.state);
    if (ended.state === "stored" || ended.state === "held") bar.value = bar.max;
    setText(size, bytes(ended.bytes));
    setText(rate, "");
    setText(left, ended.error ? errorWords(ended.error) : "");
  };
  return row;
}

function timeLeft({ state, expected, rate, bytes: received }) {
  if (state !== "receiving" || expected === null || rate === null) return "";
  if (received >= expected) return "";
  if (rate < 1) return t("stalled");
  const seconds = (expected - received) / rate;
  return seconds > 30 * 86400 ? t("more than a month left") : t("{time} left", { time: duration(seconds) });
}
