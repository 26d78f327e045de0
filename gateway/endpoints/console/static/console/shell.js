// What all pages share: the language, who is signed in, the bar, and what shows a failure.

import { byId, element } from "../dom.js";
import { get, signInAddress } from "./api.js";
import { drawBar } from "./bar.js";
import { notify, watchConnection } from "./notify.js";
import { loadTexts, markLanguage, t } from "./texts.js";

export { notify };

/**
 * Fill a page: `openPage(() => t("Events"), fill, { role: "operator" })`. `fill(main, session)` may be async; what
 * it throws is shown. Without a session that may see the page, the person is asked to sign in.
 */
export async function openPage(title, fill, { role = "uploader" } = {}) {
  const main = byId("main");
  const session = await openBar();
  markLanguage();
  byId("skip").textContent = t("Skip to the page");
  document.title = `${title()} · Upload Gateway`;
  try {
    if (session instanceof Error) throw session;
    main.replaceChildren();
    if (!may(session, role)) return refuse(main, session);
    await fill(main, session);
  } catch (error) {
    showFailure(main, error, () => location.reload());
  }
}

/** Draw the bar; return the session, or the `ApiError` where it cannot be had. */
export async function openBar() {
  const [session] = await Promise.all([get("session").catch((error) => error), loadTexts()]);
  const answered = session instanceof Error ? null : session;
  drawBar(answered);
  watchConnection(answered);
  return session;
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
  if (role === "anyone" || document.body.dataset.page === "sign-in") return true;
  return role === "operator" ? session.role === "operator" : session.role !== null;
}

function refuse(main, session) {
  if (session.role === null) return location.replace(signInAddress());
  main.replaceChildren(element("section", { class: "notice" },
    element("h2", {}, t("This page is for operators")),
    element("p", {}, t("You are signed in as {name}, who may upload.", { name: session.principal?.name ?? "" }))));
}
