// What is said of uploads. Names and reasons are of others: they are shown as text, without what turns text around.

import { bytes, duration, speed } from "./format.js";
import { BEGAN_ANEW, BREAKS, FILE_CHANGED, UNSURE } from "./upload-runner.js";
import { number, t } from "./texts.js";

/** Control characters, and those that change the direction of what follows (Unicode TR 9, "Trojan Source"). */
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const OWN = {
  [FILE_CHANGED]: () => t("The file on this device was changed or removed. Choose it again."),
  [BREAKS]: () => t("The connection breaks again and again."),
  [UNSURE]: () => t("The answer was lost, so it is not certain that the file is stored."),
  [BEGAN_ANEW]: () => t("Nothing of it is kept: it begins anew."),
};

/** Return a name as it can be shown. */
export function shownName(text) {
  return text.replace(UNSEEN, "\ufffd");
}

/** Return a reason as a sentence. */
export function sentence(text) {
  const clean = shownName(text.trim());
  if (!clean) return "";
  return clean.charAt(0).toUpperCase() + clean.slice(1) + (/[.!?…]$/.test(clean) ? "" : ".");
}

/** Return why a job is where it is. */
export function reasonOf(job) {
  if (OWN[job.error]) return OWN[job.error]();
  const later = job.retryAfter > 60 ? ` ${t("Try again in {time}.", { time: duration(job.retryAfter) })}` : "";
  if (job.error) return sentence(job.error) + later;
  return job.status ? t("The gateway answered with the status {status}.", { status: job.status }) + later : "";
}

/** Return how far a job is, in percent. */
export function percentOf(sent, total, isWhole = false) {
  if (!total) return isWhole ? 100 : 0;
  return isWhole ? 100 : Math.min(99, Math.floor((100 * sent) / total));
}

/** Return a percentage as the language writes it. */
export function percent(value) {
  return number(value / 100, { style: "percent" });
}

/** Return the line below the name of a job that is not stored. */
export function stateOf(job, transfers) {
  const size = bytes(job.size);
  const isUntold = !job.sent && (job.state === "waiting" || job.state === "sending");
  const far = isUntold ? size : t("{percent} of {size}", { percent: percent(percentOf(job.sent, job.size)), size });
  const note = OWN[job.note] ? `${OWN[job.note]()} ` : "";
  switch (job.state) {
    case "waiting": return t("Waits, {size}", { size: far });
    case "sending": return note + sendingOf(job, far, size);
    case "interrupted": return interruptedOf(job, far, transfers);
    case "paused": return t("Paused at {size}", { size: far });
    case "missing": return note + t("{size} so far. Choose the file again.", { size: far });
    case "failed": return reasonOf(job);
    default: return "";
  }
}

function sendingOf(job, far, size) {
  if (job.sent >= job.size) return t("All {size} sent, being stored", { size });
  const rate = job.speed.value();
  const left = job.speed.secondsFor(job.size - job.sent);
  const rest = left !== null && left > 1 && t("{time} left", { time: duration(left) });
  return [far, rate > 0 && speed(rate), rest].filter(Boolean).join(" · ");
}

function interruptedOf(job, far, transfers) {
  if (transfers.signedOut) return t("Waits for you to sign in, at {size}", { size: far });
  const reason = reasonOf(job);
  const seconds = (job.waitsUntil - Date.now()) / 1000;
  if (reason && seconds > 1) return t("{reason} Goes on in {time}.", { reason, time: duration(seconds) });
  return reason || t("Interrupted at {size}. Goes on by itself.", { size: far });
}
