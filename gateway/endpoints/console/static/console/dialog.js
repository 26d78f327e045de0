// Questions before what cannot be undone.

import { element } from "../dom.js";
import { t } from "./texts.js";

/** Ask; return whether the person agrees: `confirm({ title, text, action: t("Drop 12 deliveries"), danger: true })`. */
export function confirm({ title, text, action, danger = false }) {
  return new Promise((resolve) => {
    const close = (agreed) => () => dialog.close(agreed ? "yes" : "");
    const dialog = element(
      "dialog", { "aria-labelledby": "dialog-title" },
      element("h2", { id: "dialog-title" }, title),
      element("div", {}, [text].flat().map((line) => element("p", {}, line))),
      element("div", { class: "row" },
        element("button", { type: "button", class: danger ? "danger" : "", onclick: close(true) }, action),
        element("button", { type: "button", class: "plain", autofocus: danger, onclick: close(false) }, t("Cancel"))),
    );
    dialog.addEventListener("close", () => { resolve(dialog.returnValue === "yes"); dialog.remove(); });
    document.body.append(dialog);
    dialog.showModal();
  });
}
