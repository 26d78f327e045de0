// Buttons that make links to a folder: for operators, who may.

import { element } from "../dom.js";
import { offerLink } from "./link-dialog.js";
import { t } from "./texts.js";

/** Return the buttons for the folder at a stored path. */
export function folderLinks(session, folder) {
  if (session.role !== "operator") return [];
  const button = (label, kind) => element("button", { type: "button", class: "plain", onclick: () => offerLink({ kind, folder }) }, label);
  return [button(t("Share link"), "share"), button(t("Drop link"), "drop")];
}
