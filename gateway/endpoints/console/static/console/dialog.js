// Questions, in a dialog that takes the focus and gives it back.

import { element } from "../dom.js";
import { t } from "./texts.js";

let count = 0;

/**
 * Ask; return whether the person agrees: `confirm({ title, text, action, danger: true })`.
 * `text` is a text or a list of them, also elements. `submit()`, where given, does it before the dialog closes: what it
 * throws is shown there.
 */
export async function confirm(question) {
  return (await ask(question)) !== null;
}

/**
 * Ask for values; return them by the names of the fields, null where the person cancels:
 * `ask({ title, action, fields: [{ name: "days", label: t("Days"), type: "number", value: 7, min: 1, required: true }] })`.
 * A field has `name`, `label`, and perhaps `hint`, `type` ("select" with `options: [[value, label]]`, "textarea",
 * "checkbox", or one of `<input>`), `value`, and any attribute of its element. As for `confirm`: `text`, `danger`, `submit(values)`.
 */
export function ask({ title, text = [], fields = [], action, danger = false, submit }) {
  const made = fields.map(field);
  const failure = element("p", { class: "failure", role: "alert" });
  const agree = element("button", { type: "submit", class: danger ? "danger" : "" }, action);
  const form = element("form", { method: "dialog", onsubmit: send },
    element("div", { class: "text" }, [text].flat().map((line) => (line instanceof Element ? line : element("p", {}, line)))),
    made.map(([, place]) => place), failure,
    element("div", { class: "buttons" }, agree,
      element("button", { type: "button", class: "plain", autofocus: danger && fields.length === 0, onclick: () => dialog.close() }, t("Cancel"))));
  const dialog = openDialog(title, form);
  let values = null;
  async function send(event) {
    event.preventDefault();
    if (agree.ariaDisabled) return;
    const given = Object.fromEntries(made.map(([name, , value]) => [name, value()]));
    failure.replaceChildren();
    agree.ariaDisabled = "true"; // and not `disabled`, which would lose the focus
    try {
      await submit?.(given);
      values = given;
      dialog.close();
    } catch (error) {
      failure.replaceChildren(t(error.message));
    }
    agree.ariaDisabled = null;
  }
  return new Promise((resolve) => { dialog.addEventListener("close", () => resolve(values)); });
}

/** Show elements in a dialog, with a heading; return it. Escape closes it, and it is removed then. */
export function openDialog(title, ...content) {
  const id = `dialog-${count += 1}`;
  const before = document.activeElement;
  const dialog = element("dialog", { "aria-labelledby": id }, element("h2", { id }, title), ...content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (before?.isConnected) before.focus();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** Return the name of a field, its element, and what reads its value. */
function field({ name, label, hint, type = "text", value = "", options, ...attributes }) {
  const id = `field-${count += 1}`;
  const more = { id, name, "aria-describedby": hint && `${id}-hint`, ...attributes };
  let input;
  if (type === "select") {
    input = element("select", more, options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
  } else if (type === "textarea") {
    input = element("textarea", { rows: 4, ...more });
    input.value = value;
  } else if (type === "checkbox") {
    input = element("input", { type, checked: Boolean(value), ...more });
  } else {
    input = element("input", { type, value, autocomplete: "off", ...more });
  }
  const title = element("label", { for: id }, label);
  const note = hint && element("p", { class: "muted", id: `${id}-hint` }, hint);
  const check = type === "checkbox";
  return [
    name,
    element("div", { class: check ? "form-field check" : "form-field" }, check ? [input, title] : [title, input], note),
    () => (check ? input.checked : type === "number" ? (input.value === "" ? null : Number(input.value)) : input.value),
  ];
}
