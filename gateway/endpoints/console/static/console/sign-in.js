// The page `sign-in`: with a token or a key, or with OpenID Connect; signed in: until when, and the way out.

import { announce, element } from "../dom.js";
import { address, API, get, post, remove } from "./api.js";
import { duration } from "./format.js";
import { openPage, showFailure } from "./shell.js";
import { currentLanguage, t } from "./texts.js";

openPage(() => t("Sign in"), (main, session) => new SignInPage(main).show(session), { role: "anyone" });

class SignInPage {
  #main;
  #failure = element("p", { class: "failure", id: "failure", role: "alert" });
  #token = null;

  constructor(main) {
    this.#main = main;
  }

  show(session) {
    const content = session.role === null ? this.#ways(session) : this.#identity(session);
    this.#main.replaceChildren(element("section", { class: "card sign-in" }, content));
    if (session.role === null && !session.ways.includes("oidc")) this.#token.focus();
  }

  // -- signed out

  #ways(session) {
    const oidc = session.ways.includes("oidc");
    return [
      element("h2", {}, t("Sign in")),
      oidc && element("p", {}, element("a", { class: "button wide", href: issuerAddress() }, t("Sign in with your organisation"))),
      oidc && element("p", { class: "or" }, t("or with a token")),
      this.#form(session, oidc),
    ];
  }

  #form(session, oidc) {
    this.#token = element("input", {
      id: "token", name: "password", type: "password", autocomplete: "current-password", required: true,
      autocapitalize: "off", spellcheck: "false", "aria-describedby": "token-hint failure",
    });
    const hint = session.authorization === "jwt"
      ? t("A token, an API key or a JSON Web Token.")
      : t("The token that the gateway printed when it started, one of its settings, or an API key.");
    return element("form", { class: "stack", onsubmit: (event) => this.#signIn(event) },
      // Password managers keep a password by the name of a user.
      element("input", { class: "unseen", type: "text", name: "username", autocomplete: "username", value: location.host, tabindex: "-1", "aria-hidden": "true" }),
      element("div", { class: "form-field" },
        element("label", { for: "token" }, t("Token or key")), this.#token,
        element("p", { class: "muted", id: "token-hint" }, hint)),
      this.#failure,
      element("button", { type: "submit", class: oidc ? "plain wide" : "wide" }, t("Sign in")));
  }

  async #signIn(event) {
    event.preventDefault();
    const button = event.submitter ?? event.target.querySelector("button");
    button.disabled = true;
    this.#fail("");
    try {
      await post("session", { token: this.#token.value });
      const session = await get("session");
      if (!session.signed_in) {
        throw new Error(t("The browser does not keep the session. Allow cookies, or open the gateway at its public address."));
      }
      location.assign(wayBack(session));
    } catch (error) {
      this.#fail(explained(error));
      button.disabled = false;
      this.#token.select();
      this.#token.focus();
    }
  }

  #fail(text) {
    this.#failure.textContent = text;
    if (text) this.#token?.setAttribute("aria-invalid", "true");
    else this.#token?.removeAttribute("aria-invalid");
  }

  // -- signed in

  #identity(session) {
    const name = session.principal?.name;
    const onward = element("a", { class: "button", href: wayBack(session) }, t("Go on"));
    if (!name) {
      return [element("h2", {}, t("Nobody needs to sign in here")),
        element("p", { class: "muted" }, t("This gateway serves everybody who reaches it.")), element("p", {}, onward)];
    }
    const role = session.role === "operator" ? t("Operator") : t("Uploader");
    return [
      element("h2", {}, t("You are signed in")),
      element("dl", { class: "facts" },
        element("dt", {}, t("Name")), element("dd", {}, element("bdi", {}, name)),
        element("dt", {}, t("Role")), element("dd", {}, element("span", { class: "tag" }, role)),
        session.expires && [element("dt", {}, t("Until")), element("dd", {}, endOf(session.expires))]),
      !session.signed_in && element("p", { class: "muted" }, t("A proxy or a certificate says who you are: to sign out, do so there.")),
      this.#failure,
      element("div", { class: "toolbar" }, onward,
        session.signed_in && element("button", { type: "button", class: "plain", onclick: () => this.#signOut() }, t("Sign out"))),
    ];
  }

  async #signOut() {
    try {
      await remove("session");
      const session = await get("session");
      this.show(session);
      announce(t("You are signed out"));
    } catch (error) {
      if (error.status === 0) this.#fail(explained(error));
      else showFailure(this.#main, error, () => location.reload());
    }
  }
}

function explained(error) {
  if (error.status === 401) return t("This is not valid here. Check that you copied all of it.");
  if (error.status === 429) return t("Too many sign-ins have failed. Try again in {time}.", { time: duration(error.retryAfter) });
  return t(error.message);
}

function endOf(iso) {
  const when = new Date(iso);
  const options = { dateStyle: "medium", timeStyle: "short" };
  return element("time", { datetime: iso }, when.toLocaleString(currentLanguage(), options));
}

function issuerAddress() {
  return address("session/oidc", { return: wayBack({ role: "operator" }) });
}

/** Return where the person came from, if that is a page of this gateway, else a page for its role. */
function wayBack(session) {
  const asked = new URLSearchParams(location.search).get("return") ?? "";
  const start = session.role === "operator" ? API : new URL("..", API);
  if (!asked.startsWith("/") || asked.startsWith("//") || asked.includes("\\")) return start.pathname;
  const url = new URL(asked, location.origin);
  return url.origin === location.origin ? url.pathname + url.search + url.hash : start.pathname;
}
