// The bar of every page: the pages that the person may see, the language, who is signed in.

import { byId, element } from "../dom.js";
import { API, remove, signInAddress } from "./api.js";
import { disclosure } from "./disclosure.js";
import { notify } from "./notify.js";
import { LANGUAGES, chooseLanguage, chosenLanguage, currentLanguage, markLanguage, t } from "./texts.js";

const PAGES = [
  ["..", "upload", () => t("Upload"), (session) => session.role],
  ["files", "files", () => t("Files"), (session) => session.role === "operator" || (session.role && session.features?.listing)],
  ["uploads", "activity", () => t("Activity"), (session) => session.role],
  ["events", "events", () => t("Events"), (session) => session.role === "operator"],
  ["plugins", "plugins", () => t("Plugins"), (session) => session.role === "operator"],
  ["links", "links", () => t("Links"), (session) => session.role === "operator"],
  ["status", "system", () => t("System"), (session) => session.role === "operator"],
  ["docs", "docs", () => t("API"), (session) => session.role],
];

const PARENTS = { timeline: "activity", event: "events" };
const FOR_GUESTS = new Set(["drop", "share", "sign-in"]); // nobody signs in from there

/** Fill the bar for a session; null: it could not be asked for. */
export function drawBar(session) {
  const page = document.body.dataset.page;
  const bar = byId("bar");
  markLanguage(bar);
  const start = session?.role === "operator" ? API : new URL("..", API);
  const menu = element("div", { class: "bar-menu", id: "bar-menu", "data-closed": true },
    links(session, page), element("div", { class: "bar-end" }, languages(), account(session, page)));
  const button = element("button", {
    type: "button", class: "quiet menu-button", "aria-expanded": "false", "aria-controls": "bar-menu",
    onclick: () => open(button.getAttribute("aria-expanded") === "false"),
  }, t("Menu"));
  function open(shown) {
    button.setAttribute("aria-expanded", String(shown));
    menu.toggleAttribute("data-closed", !shown);
  }
  bar.replaceChildren(
    element("h1", { class: "mark" },
      element("a", { href: start, "aria-current": ["home", "upload"].includes(page) && start.pathname === location.pathname && "page" }, "Upload Gateway")),
    button, menu);
  bar.onkeydown = (event) => {
    if (event.key !== "Escape" || button.getAttribute("aria-expanded") === "false") return;
    open(false);
    button.focus();
  };
}

function links(session, page) {
  const here = PARENTS[page] ?? page;
  const seen = session ? PAGES.filter(([, , , may]) => may(session)) : [];
  return seen.length > 0 && element("nav", { "aria-label": t("Pages") }, element("ul", {}, seen.map(([path, name, label]) =>
    element("li", {}, element("a", { href: new URL(path, API), "aria-current": name === here && "page" }, label())))));
}

function languages() {
  const codes = Object.keys(LANGUAGES);
  if (codes.length < 2) return null;
  const chosen = chosenLanguage();
  const choice = (code, label) => element("button", {
    type: "button", class: "quiet", lang: code ?? undefined, "aria-current": code === chosen && "true",
    onclick: () => chooseLanguage(code),
  }, label);
  const name = LANGUAGES[currentLanguage()];
  return disclosure(name, [codes.map((code) => choice(code, LANGUAGES[code])), choice(null, t("As the browser says"))],
    { name: t("Language: {name}", { name }) });
}

function account(session, page) {
  if (!session || FOR_GUESTS.has(page) && !session.signed_in) return null;
  if (session.role === null || (!session.signed_in && !session.principal && session.authorization !== "none")) {
    return session.ways?.length > 0 && element("a", { href: signInAddress() }, t("Sign in"));
  }
  if (!session.principal) return null;
  const { name } = session.principal;
  const role = session.role === "operator" ? t("Operator") : t("Uploader");
  return disclosure(name, [
    element("p", {}, element("strong", {}, name), element("span", { class: "muted" }, role)),
    session.signed_in && element("button", { type: "button", class: "quiet", onclick: signOut }, t("Sign out")),
  ], { name: t("Account: {name}", { name }) });
}

async function signOut() {
  try {
    await remove("session");
    location.assign(new URL("session", API));
  } catch (error) {
    notify(t(error.message), { kind: "bad" });
  }
}
