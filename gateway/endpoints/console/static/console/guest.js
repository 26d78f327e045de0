// What the pages for people with a link share: no navigation, their link, its password, and its end in words.

import { byId, element } from "../dom.js";
import { API, ApiError, call } from "./api.js";
import { drawBar } from "./bar.js";
import { watchConnection } from "./notify.js";
import { loadTexts, markLanguage, t } from "./texts.js";

const KEPT = "link"; // in the storage of this tab: what a password was exchanged for
const ENDED = "link_unavailable";
const FOR_SHARING = /^#ugl_[A-Za-z0-9_-]{43}$/;

/** The link of this page: its secret is behind `#`, which no server sees; each request sends it as a header. */
export class GuestLink {
  #secret = location.hash.slice(1);
  #bearer = keptBearer(this.#secret);

  /** What every request of the page sends. */
  get headers() {
    return { Authorization: `Bearer ${this.#bearer ?? this.#secret}` };
  }

  /** Ask what the link is for, with its password where it is given. Raises `ApiError`. */
  async open(password) {
    try {
      const told = await this.#ask(password);
      if (!told.bearer) return told;
      this.#bearer = told.bearer;
      sessionStorage.setItem(KEPT, JSON.stringify({ secret: this.#secret, bearer: told.bearer }));
      return told;
    } catch (error) {
      if (error.code !== ENDED || !this.#bearer) throw error;
      this.#bearer = null; // it has expired before the link has: its password is asked for again
      sessionStorage.removeItem(KEPT);
      return this.#ask(password);
    }
  }

  #ask(password) {
    return call("POST", "links/open", { body: password === undefined ? {} : { password }, headers: this.headers });
  }
}

/**
 * Open a page for a link of `kind`: `openGuestPage("drop", () => t("Send files"), fill)`. `fill(main, link, told)` is
 * called once the link is open; what it throws is shown.
 */
export async function openGuestPage(kind, title, fill) {
  const main = byId("main");
  await loadTexts();
  drawBar(null);
  byId("bar").querySelector("h1 a")?.removeAttribute("href"); // it leads nowhere from here
  watchConnection(null);
  markLanguage();
  byId("skip").textContent = t("Skip to the page");
  document.title = title();
  addEventListener("hashchange", () => location.reload());
  if (!FOR_SHARING.test(location.hash)) return showEnd(main, t("This link is not whole"), t("Open it exactly as you got it: a part of it is missing."));
  const link = new GuestLink();
  const enter = async (told) => {
    if (told.kind !== kind) return location.replace(new URL(`${told.kind}${location.hash}`, API));
    if (told.needs_password) return askForPassword(main, link, enter);
    main.replaceChildren();
    await fill(main, link, told);
  };
  try {
    await enter(await link.open());
  } catch (error) {
    showTrouble(main, error, () => location.reload());
  }
}

/** Tell whether a link has ended. */
export function hasEnded(error) {
  return error instanceof ApiError && error.code === ENDED;
}

/** Show why the page cannot go on: the link has ended, or the gateway does not answer. */
export function showTrouble(place, error, again) {
  if (hasEnded(error)) {
    return showEnd(place, t("This link has ended"), t("It was revoked, it has expired, or it never was. Ask whoever sent it for a new one."));
  }
  const busy = error.status === 429 ? t("Too many tries. Wait some minutes, and try again.") : t(error.message);
  place.replaceChildren(element("section", { class: "guest-card", role: "alert" },
    element("h2", {}, t("This did not work")), element("p", {}, busy),
    element("button", { type: "button", onclick: again }, t("Try again"))));
}

function showEnd(place, heading, text) {
  place.replaceChildren(element("section", { class: "guest-card", role: "alert" },
    element("h2", {}, heading), element("p", { class: "muted" }, text)));
}

/** Ask for the password until it is right, then go on with `enter`. */
export function askForPassword(place, link, enter) {
  const input = element("input", { id: "link-password", type: "password", autocomplete: "off", required: true, maxlength: 1000 });
  const fault = element("p", { class: "fault", id: "password-fault", role: "alert" });
  const button = element("button", { type: "submit" }, t("Open"));
  const form = element("form", { class: "stack tight", onsubmit: send },
    element("label", { for: "link-password" }, t("Password")), input, fault, button);
  async function send(event) {
    event.preventDefault();
    button.disabled = true;
    fault.textContent = "";
    try {
      await enter(await link.open(input.value));
    } catch (error) {
      if (hasEnded(error)) return showTrouble(place, error);
      fault.textContent = wordsOf(error);
      input.setAttribute("aria-describedby", "password-fault");
      input.select();
    } finally {
      button.disabled = false;
    }
  }
  place.replaceChildren(element("section", { class: "guest-card" },
    element("h2", {}, t("This link has a password")),
    element("p", { class: "muted" }, t("Whoever sent it has given it to you another way.")), form));
  input.focus();
}

function wordsOf(error) {
  if (error.code === "wrong_password") return t("This is not the password.");
  if (error.status === 429) return t("Too many tries. Wait some minutes, and try again.");
  return t(error.message);
}

function keptBearer(secret) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    return kept?.secret === secret ? kept.bearer : null;
  } catch {
    return null;
  }
}
