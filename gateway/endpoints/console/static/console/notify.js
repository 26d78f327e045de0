// What became of an action, told at the foot of the page; and what is wrong with the connection, below the bar.

import { byId, element } from "../dom.js";
import { signInAddress } from "./api.js";
import { t } from "./texts.js";

const STAYS = 8000; // milliseconds; what failed stays until it is read
const MOST = 4;

/** Tell what became of an action: `notify(t("Deleted {name}", { name }))`. `kind: "bad"` stays until it is closed. */
export function notify(text, { kind = "good" } = {}) {
  const before = document.activeElement;
  const toast = element("div", { class: `toast ${kind}` }, element("p", {}, text),
    element("button", { type: "button", class: "quiet small", onclick: close }, t("Close")));
  function close() {
    const focused = toast.contains(document.activeElement);
    toast.remove();
    if (focused) (before?.isConnected && before !== document.body ? before : byId("main")).focus();
  }
  const place = byId("toasts");
  place.append(toast);
  if (place.children.length > MOST) place.firstElementChild.remove();
  if (kind !== "good") return;
  const leave = () => setTimeout(() => (toast.matches(":hover, :focus-within") ? leave() : toast.remove()), STAYS);
  leave();
}

/** Show what is wrong with the connection or the session, until it is mended. */
export function watchConnection(session) {
  const banner = byId("banner");
  banner.setAttribute("role", "status");
  addEventListener("gateway:away", () => banner.replaceChildren(t("The gateway does not answer. Trying again …")));
  addEventListener("gateway:returned", () => banner.replaceChildren());
  if (!session?.role) return;
  addEventListener("gateway:unauthorized", () => banner.replaceChildren(
    t("You are not signed in any more."), " ", element("a", { href: signInAddress() }, t("Sign in"))));
}
