// Sizes, durations and moments, as people read them.

import { element } from "../dom.js";
import { currentLanguage, number, t } from "./texts.js";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Return a size: `10.3 kB`. */
export function bytes(count) {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${number(value, { maximumFractionDigits: unit && value < 100 ? 1 : 0 })} ${UNITS[unit]}`;
}

/** Return a speed: `1.2 MB/s`. */
export function speed(bytesPerSecond) {
  return `${bytes(bytesPerSecond)}/s`;
}

/** Return seconds in two units at most: `2 h 5 min`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return t("{count} s", { count: whole });
  if (whole % 3600 === 0 && whole < 86400) return t("{hours} h", { hours: whole / 3600 });
  if (whole % 60 === 0 && whole < 3600) return t("{minutes} min", { minutes: whole / 60 });
  if (whole < 3600) return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: whole % 60 });
  if (whole < 86400) return t("{hours} h {minutes} min", { hours: Math.floor(whole / 3600), minutes: Math.floor((whole % 3600) / 60) });
  return t("{days} d {hours} h", { days: Math.floor(whole / 86400), hours: Math.floor((whole % 86400) / 3600) });
}

/** Return an element with a moment (ISO text): how long ago, the whole date in its title. */
export function moment(iso) {
  const when = new Date(iso);
  const whole = when.toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "medium" });
  return element("time", { datetime: iso, title: whole }, ago(when));
}

/** Return how long ago a date is, or how far ahead. */
export function ago(when) {
  const seconds = (when - Date.now()) / 1000;
  const relative = new Intl.RelativeTimeFormat(currentLanguage(), { numeric: "auto" });
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= length) return relative.format(Math.trunc(seconds / length), unit);
  }
  return relative.format(Math.trunc(seconds), "second");
}
