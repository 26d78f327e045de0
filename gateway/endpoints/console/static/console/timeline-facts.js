// What an upload is: its file, its sender, its digests.

import { copyButton, element } from "../dom.js";
import { principalName } from "./activity-states.js";
import { address } from "./api.js";
import { nameElement } from "./files-names.js";
import { bytes, moment } from "./format.js";
import { number, t } from "./texts.js";

/** Return the facts as a list. */
export function factsOf(status) {
  const facts = [
    [t("Path"), element("span", { class: "path" }, nameElement(status.path))],
    [t("Id"), element("span", { class: "row" }, element("code", {}, status.upload_id), copyButton(t("Copy id"), () => status.upload_id))],
    [t("From"), sender(status)],
    [t("Size"), sizeText(status)],
    [t("Type"), status.mime],
    [t("Entity tag"), status.etag && element("code", {}, status.etag)],
    [t("Object"), status.place && element("code", {}, `${status.place.bucket}/${status.place.key}`)],
    ...Object.entries(status.digests ?? {}).map(([name, value]) => [name, element("code", {}, value)]),
    ...Object.entries(status.metadata ?? {}).map(([name, value]) => [
      nameElement(name), nameElement(value)]),
    [t("Result"), status.result && element("code", {}, JSON.stringify(status.result))],
  ];
  return element("dl", { class: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => [
    element("dt", {}, name), element("dd", {}, value)]));
}

function sender({ principal, remote }) {
  if (!principal && !remote) return null;
  return element("span", {}, principal && `${principalName(principal)} (${principal.kind}) `, remote && element("span", { class: principal ? "muted" : "" }, remote));
}

function sizeText(status) {
  if (status.state === "receiving" || status.state === "admitting" || status.state === "waiting") {
    const whole = status.length ?? status.content_length;
    return whole === null || whole === undefined ? bytes(status.bytes) : t("{size} of {whole}", { size: bytes(status.bytes), whole: bytes(whole) });
  }
  return status.bytes < 1000 ? bytes(status.bytes) : t("{size} ({count} bytes)", { size: bytes(status.bytes), count: number(status.bytes) });
}

/** Return a link to where the file is; nothing where it is not stored. */
export function fileLink(status, session) {
  if (status.state !== "stored" || !(session.role === "operator" || session.features?.listing)) return null;
  const folder = status.path.slice(0, status.path.lastIndexOf("/") + 1);
  return element("a", { class: "button plain", href: address("files", { path: folder }), "data-key": "file" }, t("Show in its folder"));
}

/** Return a moment, and how long after another one it was. */
export function momentAfter(iso, begin) {
  if (!iso) return "";
  const seconds = (new Date(iso) - new Date(begin)) / 1000;
  const after = seconds > 0 ? element("span", { class: "muted" }, ` +${shortTime(seconds)}`) : "";
  return element("span", { class: "step-time" }, moment(iso), after);
}

/** Return seconds as they are told of a run: `12 ms`, `3.4 s`, `5 min`. */
export function shortTime(seconds) {
  if (seconds < 0.001) return t("less than 1 ms");
  if (seconds < 1) return t("{count} ms", { count: number(Math.round(seconds * 1000)) });
  if (seconds < 120) return t("{count} s", { count: number(seconds, { maximumFractionDigits: seconds < 10 ? 1 : 0 }) });
  if (seconds < 7200) return t("{count} min", { count: number(Math.round(seconds / 60)) });
  return t("{count} h", { count: number(seconds / 3600, { maximumFractionDigits: 1 }) });
}
