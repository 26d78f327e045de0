// What all pages share: the language, who is signed in, the bar with its links, and what shows a failure.

import { byId, element } from "../dom.js";
import { API, get } from "./api.js";
import { loadTexts, t } from "./texts.js";

/**
 * Fill a page: `openPage(() => t("Events"), fill, { role: "operator" })`. `fill(main, session)` may be async; what
 * it throws is shown. Without a session that may see the page, the person is asked to sign in.
 */
export async function openPage(title, fill, { role = "uploader" } = {}) {
  await loadTexts();
  document.title = `${title()} · Upload Gateway`;
  const main = byId("main");
  try {
    const session = await get("session");
    drawBar(session);
    main.replaceChildren();
    if (!may(session, role)) return refuse(main, session);
    await fill(main, session);
  } catch (error) {
    showFailure(main, error, () => location.reload());
  }
}

/** Show what went wrong in place of `place`, with a button to try again. */
export function showFailure(place, error, again) {
  place.replaceChildren(element(
    "section", { class: "notice", role: "alert" },
    element("h2", {}, t("This did not work")),
    element("p", {}, t(error.message)),
    element("button", { type: "button", onclick: again }, t("Try again")),
  ));
}

function may(session, role) {
  if (role === "anyone") return true;
  return role === "operator" ? session.role === "operator" : session.role !== null;
}

function refuse(main, session) {
  const here = encodeURIComponent(location.pathname + location.search + location.hash);
  if (session.role === null) location.replace(new URL(`session?return=${here}`, API));
  else main.replaceChildren(element("section", { class: "notice" }, element("h2", {}, t("This page is for operators"))));
}

const LINKS = [
  ["..", "upload", () => t("Upload"), "uploader"],
  ["files", "files", () => t("Files"), "uploader"],
  ["uploads", "activity", () => t("Activity"), "uploader"],
  ["events", "events", () => t("Events"), "operator"],
  ["plugins", "plugins", () => t("Plugins"), "operator"],
  ["links", "links", () => t("Links"), "operator"],
  ["status", "system", () => t("System"), "operator"],
];

function drawBar(session) {
  const here = document.body.dataset.page;
  const links = LINKS.filter(([, , , role]) => may(session, role)).map(([path, page, label]) =>
    element("li", {}, element("a", { href: new URL(path, API), "aria-current": page === here && "page" }, label())));
  byId("bar").replaceChildren(element("nav", { "aria-label": t("Pages") }, element("ul", {}, links)));
}
