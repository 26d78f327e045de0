// What concerns all uploads at once: the gateway is away, the session has ended, files wait to be chosen again.

import { announce, byId, element } from "../dom.js";
import { API, get, post } from "./api.js";
import { reopened } from "./upload-files.js";
import { t, tn } from "./texts.js";

/** Say on this page that uploads go on by themselves, and let people sign in without leaving it. */
export function tellOfConnection(transfers) {
  const banner = byId("banner");
  addEventListener("gateway:away", () => {
    if (transfers.busy) banner.replaceChildren(t("The gateway does not answer; going on by itself when it is back."));
  });
  addEventListener("gateway:unauthorized", () => {
    banner.replaceChildren(); // ours has a field for the token
    transfers.signOut();
  });
}

/** The session has ended in the middle: nothing is lost, and everything goes on when somebody has signed in. */
export class SignInBanner {
  #transfers;
  #error = element("p", { class: "fault", role: "alert" });
  #token = element("input", {
    type: "password", id: "sign-in-token", autocomplete: "current-password", required: true,
  });
  element;

  constructor(transfers, session) {
    this.#transfers = transfers;
    const form = element("form", { class: "row", onsubmit: (event) => this.#signIn(event) },
      element("label", { for: "sign-in-token" }, t("Token")), this.#token, element("button", {}, t("Sign in")));
    const page = new URL("session", API);
    const link = { href: page, target: "_blank", rel: "noopener" };
    const elsewhere = element("a", link, t("Sign in on a page of its own"));
    this.element = element("section", { class: "call", hidden: true },
      element("h2", {}, t("Your session has ended")),
      element("p", {}, t("Sign in again: nothing is lost, and all uploads go on where they are.")),
      session.ways.includes("token") && form, this.#error, element("p", {}, elsewhere));
    addEventListener("focus", () => this.#look());
  }

  draw({ signedOut }) {
    if (signedOut === !this.element.hidden) return;
    this.element.hidden = !signedOut;
    this.#error.textContent = "";
    if (signedOut) {
      announce(t("Your session has ended"));
      this.#token.focus();
    }
  }

  async #signIn(event) {
    event.preventDefault();
    try {
      await post("session", { token: this.#token.value.trim() });
      this.#token.value = "";
      this.#transfers.signedIn();
    } catch (fault) {
      const isWrong = fault.status === 401 || fault.status === 403;
      this.#error.textContent = isWrong ? t("This token is not valid.") : t(fault.message);
      this.#token.focus();
    }
  }

  /** Somebody may have signed in on another page. */
  async #look() {
    if (this.element.hidden) return;
    const session = await get("session").catch(() => null);
    if (session?.role) this.#transfers.signedIn();
  }
}

/** Uploads of an earlier visit: their files have to be chosen again, or are read again where the browser can. */
export class LeftBanner {
  #transfers;
  #heading = element("h2", {}, "");
  #reopen;
  #folder;
  element;

  /** `choose(folder)` opens the dialog in which files, or a folder, are chosen; `take(entries)` takes files. */
  constructor(transfers, { choose, take, onAct }) {
    this.#transfers = transfers;
    const make = (label, onclick) => element("button", { type: "button", class: "plain", onclick }, label);
    this.#reopen = element("button", { type: "button", onclick: () => this.#goOn(take) }, t("Go on"));
    this.#folder = make(t("Choose the folder"), () => choose(true));
    this.element = element("section", { class: "call", hidden: true }, this.#heading,
      element("p", {}, t("Choose the same files again: they go on where they were.")),
      element("div", { class: "row" }, this.#reopen, make(t("Choose the files"), () => choose(false)), this.#folder,
        make(t("Forget them"), () => { for (const job of this.#left()) transfers.cancel(job); onAct(); })));
  }

  draw({ counts }) {
    this.element.hidden = counts.missing === 0;
    if (this.element.hidden) return;
    this.#heading.textContent = tn(
      "{count} upload of an earlier visit is not whole", "{count} uploads of an earlier visit are not whole",
      counts.missing,
    );
    const left = this.#left();
    this.#reopen.hidden = !left.some((job) => job.handle);
    this.#folder.hidden = !left.some((job) => job.relative.includes("/"));
  }

  #left() {
    return [...this.#transfers.jobs].filter((job) => job.state === "missing");
  }

  async #goOn(take) {
    for (const job of this.#left()) {
      if (!job.handle) continue;
      const file = await reopened(job);
      if (file) take([{ file, relative: job.relative, handle: job.handle, root: job.root }]);
    }
  }
}
