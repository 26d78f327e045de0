// What goes on now, as the gateway tells it each second: one stream for a page, which the person can pause.

import { element } from "../dom.js";
import { follow } from "./api.js";
import { ago } from "./format.js";
import { t } from "./texts.js";

const STALE = 4000; // milliseconds without news after which the page says how old it is

/**
 * Follow `path` and call `onNews(value)` for each event. Return an element with a button that pauses and a word on
 * the state. A page in the background holds no connection: browsers have six for a host, of all their tabs.
 *
 * `sparse`: an event comes only when something changes. The element has `isPaused()`, and `end()`, which stops it
 * for good.
 */
export function liveUpdates(path, onNews, { onPause = () => {}, sparse = false } = {}) {
  let close = null;
  let paused = false;
  let ended = false;
  let heard = null;
  let state = "waiting";
  const dot = element("span", { class: "live-dot", "aria-hidden": "true" });
  const word = element("span", {}, t("Connecting …"));
  const button = element("button", { type: "button", class: "plain small", onclick: toggle }, t("Pause updates"));
  const place = element("div", { class: "live row" }, element("p", { class: "muted live-word" }, dot, word), button);

  function news(value) {
    heard = new Date();
    state = "open";
    onNews(value);
    tell();
  }
  function connect() {
    if (close || paused || ended || document.hidden) return;
    close = follow(path, {}, news, (now) => { state = now; tell(); });
  }
  function disconnect() {
    close?.();
    close = null;
  }
  function toggle() {
    paused = !paused;
    button.textContent = paused ? t("Resume updates") : t("Pause updates");
    if (paused) disconnect();
    else connect();
    onPause(paused);
    tell();
  }
  function tell() {
    const fresh = heard && (sparse || Date.now() - heard < STALE);
    const live = !paused && fresh && state === "open";
    place.dataset.state = paused ? "paused" : live ? "live" : "waiting";
    const since = heard ? t("as it was {ago}", { ago: ago(heard) }) : "";
    const text = live ? t("Live") : paused ? t("Paused, {since}", { since }) : heard ? t("No answer, {since}", { since }) : t("Connecting …");
    if (word.textContent !== text) word.textContent = text;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  const timer = setInterval(tell, 1000);
  keepMoments();
  connect();
  place.isPaused = () => paused;
  place.end = () => {
    ended = true;
    clearInterval(timer);
    disconnect();
    place.remove();
  };
  return place;
}

let momentsTimer = 0;

/** Bring up to date what the page says of how long ago something was. */
export function keepMoments() {
  momentsTimer ||= setInterval(() => {
    for (const time of document.querySelectorAll("time[datetime]")) setText(time, ago(new Date(time.dateTime)));
  }, 5000);
}

/** Keep the values of the latest minutes for a chart: `const keep = history(); keep(value)` returns them. */
export function history(most = 180) {
  const values = [];
  return (value) => {
    if (value !== null && value !== undefined) values.push(value);
    if (values.length > most) values.shift();
    return values;
  };
}

/** Set a text, where it is another one: nothing is drawn again that stays the same. */
export function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
