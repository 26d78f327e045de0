// Small charts: a line of values, and how much of a limit is used.

import { element } from "../dom.js";
import { number, t } from "./texts.js";

const WIDTH = 200;
const HEIGHT = 48;

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/**
 * Return a line of values, the newest last: `sparkline(rates, { label: t("Bytes per second"), format: speed })`.
 * It is as wide as its place. `chart.draw(values)` shows others.
 */
export function sparkline(values, { label, format = number }) {
  const chart = shape("svg", { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const area = shape("path", { class: "area" });
  const line = shape("path", { class: "line" });
  chart.append(shape("path", { class: "ground", d: `M0 ${HEIGHT}H${WIDTH}` }), area, line);
  chart.draw = (shown) => {
    const most = Math.max(...shown, 0);
    const points = shown.map((value, at) => {
      const x = shown.length > 1 ? (at * WIDTH) / (shown.length - 1) : WIDTH;
      return `${x.toFixed(1)} ${(HEIGHT - 1 - (most ? (value / most) * (HEIGHT - 3) : 0)).toFixed(1)}`;
    });
    line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    area.setAttribute("d", points.length > 1 ? `M0 ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z` : "");
    const now = shown.length ? format(shown.at(-1)) : t("nothing yet");
    chart.setAttribute("aria-label", t("{label}: now {now}, at most {most}", { label, now, most: format(most) }));
  };
  chart.draw(values);
  return chart;
}

/**
 * Return how much of a limit is used: `meter(used, limit, t("Disk"), { format: bytes })`. It warns from 80 % and
 * is bad from 95 %. `place.set(used, limit)` shows other values.
 */
export function meter(used, limit, label, { format = number } = {}) {
  const amount = element("span", {});
  const fill = element("div", { class: "meter-fill" });
  const track = element("div", { class: "meter-track", role: "meter", "aria-label": label, "aria-valuemin": "0" }, fill);
  const place = element("div", { class: "meter" }, element("p", {}, element("span", {}, label), amount), track);
  place.set = (value, most) => {
    const part = most > 0 ? Math.min(1, value / most) : 0;
    const text = t("{used} of {limit}", { used: format(value), limit: format(most) });
    amount.textContent = text;
    fill.style.width = `${part * 100}%`;
    place.className = `meter${part >= 0.95 ? " bad" : part >= 0.8 ? " warn" : ""}`;
    track.setAttribute("aria-valuemax", most);
    track.setAttribute("aria-valuenow", Math.min(value, most));
    track.setAttribute("aria-valuetext", text);
  };
  place.set(used, limit);
  return place;
}
