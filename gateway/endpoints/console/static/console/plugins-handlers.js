// Handlers by event; those that decide in the order in which they are asked.

import { element } from "../dom.js";
import { listAddress } from "./events-model.js";
import { duration, moment } from "./format.js";
import { number, t, tn } from "./texts.js";

const EVENTS = {
  "APIGW.OnFileUploading": () => t("Before an upload: they decide whether, and where it goes."),
  "APIGW.OnFileReceived": () => t("With the whole file, before anybody can read it: they decide whether it is stored."),
  "APIGW.OnFileUploaded": () => t("After an upload: at least once for each."),
  "APIGW.OnFileUploadFailed": () => t("After an upload that failed."),
  "APIGW.OnFileDownloading": () => t("Before a download: they decide whether."),
  "APIGW.OnFileListing": () => t("Before a list of files: they decide whether."),
  "APIGW.OnFileDeleting": () => t("Before a file is removed: they decide whether."),
  "APIGW.OnFileDeleted": () => t("After a file was removed: at least once for each."),
  "APIGW.OnObjectCreated": () => t("After an object appeared in a bucket: at least once for each."),
  Schedule: () => t("At set times: each time at least once, in one process of all."),
};

/** Return a section for each event that has handlers. */
export function handlerSections({ handlers, handler_count: count }, paused) {
  const events = [...new Set(handlers.map(({ event }) => event))];
  const sections = events.map((event) => section(event, handlers.filter((handler) => handler.event === event), paused));
  const more = count - handlers.length;
  return more > 0 ? [...sections, element("p", { class: "muted" }, tn("{count} more handler is not listed.", "{count} more handlers are not listed.", more))] : sections;
}

function section(event, handlers, paused) {
  const id = `event-${event.replaceAll(".", "-")}`;
  return element("section", { class: "stack tight", "aria-labelledby": id },
    element("h3", { id }, event.replace("APIGW.", "")),
    element("p", { class: "muted" }, EVENTS[event]?.() ?? ""),
    element("ol", { class: "handlers" }, handlers.map((handler) => item(handler, paused.has(handler.name)))));
}

function item(handler, isPaused) {
  const name = handler.retry
    ? element("a", { href: listAddress({ handler: handler.name }), title: t("Its deliveries") }, element("bdi", {}, handler.name))
    : element("bdi", {}, handler.name);
  return element("li", { class: "card" },
    element("p", { class: "row" },
      handler.order !== null && element("span", { class: "order muted", title: t("Its place in the order") }, number(handler.order)),
      element("strong", {}, name), element("code", { class: "muted place" }, handler.place)),
    element("p", { class: "row" }, isPaused && element("span", { class: "tag warn" }, t("Paused")), tags(handler)),
    handler.schedule && element("p", { class: "muted" }, scheduleText(handler.schedule), handler.next && [" · ", t("next run"), " ", moment(handler.next)]));
}

/** Return a schedule as people say it: `every 900 s` in minutes; a cron line as it is. */
function scheduleText(text) {
  const seconds = /^every (\d+) s$/.exec(text)?.[1];
  return seconds ? t("every {time}", { time: duration(Number(seconds)) }) : text;
}

function tags(handler) {
  const { retry, prefix, suffix } = handler;
  return [
    handler.kind === "webhook" && (handler.host ? t("Webhook to {host}", { host: handler.host }) : t("Webhook to a secret address")),
    handler.shadow && t("Shadow: its decision does not count"),
    handler.hold && t("Holds the file until it has decided"),
    handler.authorization === "replace" && !handler.shadow && t("Replaces the authorization"),
    handler.on_error && !handler.hold && { deny: t("A failure refuses"), allow: t("A failure allows"), hold: t("A failure holds the file") }[handler.on_error],
    t("Time-out {time}", { time: duration(handler.timeout) }),
    retry && tn("{count} attempt", "{count} attempts", retry.attempts),
    handler.concurrency && tn("{count} at a time", "{count} at a time", handler.concurrency),
    prefix.length > 0 && t("Begins with {texts}", { texts: some(prefix) }),
    suffix.length > 0 && t("Ends with {texts}", { texts: some(suffix) }),
  ].filter(Boolean).map((text) => element("span", { class: "tag" }, text));
}

function some(texts) {
  return texts.slice(0, 5).join(", ") + (texts.length > 5 ? ", …" : "");
}
