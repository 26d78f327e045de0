// Uploads that wait: for a decision, or for the rest of their bytes.

import { announce, element } from "../dom.js";
import { principalName, uploadLink } from "./activity-states.js";
import { get, post } from "./api.js";
import { ask } from "./dialog.js";
import { bytes, moment } from "./format.js";
import { nameElement, quotedName, shownName } from "./files-names.js";
import { notify } from "./shell.js";
import { rows } from "./table.js";
import { t } from "./texts.js";

const EACH = 15_000; // milliseconds between two looks

/** Return the section of held uploads, each with its buttons; nothing where there are none. */
export function heldSection() {
  return waitingFor(t("Held"), { state: "held" }, t("Held until their handlers, or an operator, decide."), [
    { title: t("File"), kind: "head", cell: uploadLink },
    { title: t("Size"), kind: "number", cell: (row) => bytes(row.bytes) },
    { title: t("From"), kind: "fit", cell: senderName },
    { title: t("Held"), kind: "fit", cell: (row) => moment(row.held ?? row.created) },
    { title: "", kind: "fit", cell: (row) => decisionButtons(row, () => document.dispatchEvent(new Event("activity:decided"))) },
  ]);
}

/** Return the section of resumable uploads that are not whole. */
export function waitingSection({ mine }) {
  return waitingFor(t("Incomplete"), { state: "waiting" }, t("They go on when their client sends the rest."), [
    { title: t("File"), kind: "head", cell: uploadLink },
    { title: t("Received"), kind: "number", cell: progressText },
    ...(mine ? [] : [{ title: t("From"), kind: "fit", cell: senderName }]),
    { title: t("Protocol"), kind: "fit", cell: (row) => row.protocol },
    { title: t("Begun"), kind: "fit", cell: (row) => moment(row.created) },
    { title: t("Dropped"), kind: "fit", cell: (row) => moment(row.expires) },
  ]);
}

function senderName(row) {
  return row.principal ? principalName(row.principal) : row.remote ?? "";
}

function progressText(row) {
  return row.length === null ? bytes(row.offset) : t("{size} of {whole}", { size: bytes(row.offset), whole: bytes(row.length) });
}

function waitingFor(title, query, text, columns) {
  const place = element("section", { class: "stack tight", hidden: true }, element("h3", {}, title), element("p", { class: "muted" }, text));
  let looked = Date.now();
  let deep = false;
  let newest;
  const table = rows({
    label: title, columns,
    load: async (cursor) => {
      deep = cursor !== undefined;
      const answer = await get("uploads", { ...query, limit: 20, cursor });
      if (!deep) place.hidden = answer.uploads.length === 0;
      return { rows: answer.uploads, next: answer.next };
    },
  });
  place.append(table);
  const look = () => {
    looked = Date.now();
    table.reload();
  };
  document.addEventListener("activity:decided", look);
  // What is read, or has the focus in it, or behind a dialog, stays as it is.
  place.note = ({ latest }) => {
    const held = latest.find((upload) => upload.state === query.state)?.upload_id;
    if ((held === newest && Date.now() - looked < EACH) || deep || place.matches(":hover, :focus-within") || document.querySelector("dialog[open]")) return;
    newest = held;
    look();
  };
  return place;
}

/** Return the buttons that decide about a held upload. */
export function decisionButtons(row, decided) {
  const name = shownName(row.path);
  async function release() {
    await decide(row, "release", {}, t("Released {name}", { name: quotedName(row.path) }), decided);
  }
  async function reject() {
    const answer = await ask({
      title: t("Reject this upload?"), danger: true, action: t("Reject"),
      text: [element("p", { class: "path" }, nameElement(row.path)), t("Its file is removed. This cannot be undone.")],
      fields: [{ name: "reason", label: t("Reason"), hint: t("Its uploader can read it."), maxlength: 1000 }],
    });
    if (answer) await decide(row, "reject", { reason: answer.reason }, t("Rejected {name}", { name: quotedName(row.path) }), decided);
  }
  return element("div", { class: "row decisions" },
    element("button", { type: "button", class: "plain small", onclick: release, "aria-label": t("Release {name}", { name }) }, t("Release")),
    element("button", { type: "button", class: "plain small danger", onclick: reject, "aria-label": t("Reject {name}", { name }) }, t("Reject")));
}

async function decide(row, verb, body, told, decided) {
  try {
    await post(`uploads/${encodeURIComponent(row.upload_id)}/${verb}`, body);
    announce(told);
    notify(told);
  } catch (error) {
    notify(t(error.message), { kind: "bad" });
  }
  decided();
}
