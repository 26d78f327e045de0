// The steps of an upload, from its request to the end of its handlers.

import { element } from "../dom.js";
import { errorWords } from "./activity-states.js";
import { quotedName } from "./files-names.js";
import { bytes, moment } from "./format.js";
import { momentAfter } from "./timeline-facts.js";
import { handlerStep } from "./timeline-handlers.js";
import { t, tn } from "./texts.js";

const EARLY = new Set(["APIGW.OnFileUploading", "APIGW.OnFileReceived"]);
const MOVING = { admitting: () => t("Its handlers decide whether it may come"), receiving: () => t("It is being received"), deciding: () => t("Handlers decide about the whole file"), committing: () => t("It is being stored") };

/** Return the elements of the steps. */
export function stepsOf(status, page) {
  const early = (status.handlers ?? []).filter((handler) => EARLY.has(handler.event) || (!handler.event && !handler.event_id));
  const later = (status.handlers ?? []).filter((handler) => !early.includes(handler));
  return [
    beginStep(status),
    status.state === "waiting" && waitingStep(status),
    ...early.map((handler) => handlerStep(handler, status, page)),
    status.held && step("held", t("Held"), status.held, status, [status.state === "held" && t("It is whole and durable, and nobody can read it until its handlers, or an operator, decide.")]),
    status.decided && status.state !== "rejected" && step("good", t("Accepted"), status.decided, status),
    MOVING[status.state] && movingStep(status),
    endStep(status),
    ...later.map((handler) => handlerStep(handler, status, page)),
    status.state === "removed" && step("", t("Removed"), null, status, [t("This very file was removed by DELETE.")]),
  ].filter(Boolean);
}

/** Return one step: `kind` colours its mark, `when` is an ISO time or null, `content` are lines or elements. */
export function step(kind, title, when, status, content = []) {
  return element("li", { class: `step ${kind}` },
    element("div", { class: "step-head" }, element("h3", {}, title), when && momentAfter(when, status.created)),
    content.flat().filter(Boolean).map((line) => (line instanceof Element ? line : element("p", { dir: "auto" }, line))));
}

function beginStep(status) {
  const names = { who: status.principal ? `${quotedName(status.principal.name)} (${status.principal.kind})` : "", address: status.remote ?? "" };
  const from = names.who && names.address ? t("By {who}, from {address}.", names) : names.who ? t("By {who}.", names)
    : names.address ? t("From {address}, without a name.", names) : "";
  const protocol = status.protocol ? t("Resumable upload, protocol {protocol}.", { protocol: status.protocol }) : "";
  return step("", t("Begun"), status.created, status, [from, protocol]);
}

function waitingStep(status) {
  return step("warn", t("Incomplete"), null, status, [
    tn("{count} request has brought {size}.", "{count} requests have brought {size}.", status.appends ?? 0, { size: bytes(status.offset) }),
    element("p", {}, t("It goes on when its client sends the rest; what is here is dropped"), " ", moment(status.expires), "."),
  ]);
}

function movingStep(status) {
  const whole = status.length ?? status.content_length;
  const bar = status.state === "receiving" && element("progress", { "aria-label": t("Progress"), max: whole ?? undefined, value: whole ? status.bytes : undefined });
  return step("now", MOVING[status.state](), null, status, [bar, status.state === "receiving" ? progressText(status, whole) : ""]);
}

function progressText(status, whole) {
  return whole ? t("{size} of {whole}", { size: bytes(status.bytes), whole: bytes(whole) }) : t("{size} so far", { size: bytes(status.bytes) });
}

function endStep(status) {
  if (status.state === "failed") return step("bad", t("Failed"), null, status, [errorLine(status), t("It was never visible.")]);
  if (status.state === "rejected") return rejectedStep(status);
  if (status.state === "unsettled") return step("warn", t("Not known yet"), status.committed, status, [t("The bucket has not told yet whether it has the object.")]);
  if (status.committed) return step("good", t("Stored"), status.committed, status, [t("The file is whole under its name, on stable storage; its handlers will run.")]);
  return null;
}

function errorLine({ error }) {
  const words = errorWords(error);
  return words === error ? error : `${words} (${error})`;
}

function rejectedStep(status) {
  const refusal = status.refusal ?? {};
  return step("bad", t("Rejected"), status.decided ?? null, status, [
    refusal.handler && t("By the handler {handler}, with the status {status}.", { handler: refusal.handler, status: refusal.status ?? "–" }),
    refusal.by && t("By {who}.", { who: quotedName(refusal.by) }),
    refusal.reason && t("Reason: {reason}", { reason: quotedName(refusal.reason) }),
    !refusal.handler && !refusal.by && errorLine(status),
    refusal.output && element("pre", { tabindex: "0", "aria-label": t("Output") }, refusal.output),
  ]);
}
