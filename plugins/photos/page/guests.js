// The dialog of links for guests: makes one, shows it once, lists those that are good, revokes them.

import { element } from "./drawing.js";

const at = (id) => document.getElementById(id);

export class Guests {
  #api;
  #askForToken;

  constructor(api, askForToken) {
    this.#api = api;
    this.#askForToken = askForToken;
    at("invite-open").addEventListener("click", () => this.#open());
    at("invite-close").addEventListener("click", () => at("invite").close());
    at("invite-copy").addEventListener("click", () => this.#copy());
    at("invite-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#make();
    });
  }

  async #open() {
    at("invite-error").textContent = "";
    at("invite-made").hidden = true;
    if (await this.#list()) at("invite").showModal();
  }

  async #make() {
    at("invite-error").textContent = "";
    try {
      const made = await this.#api.invite(Number(at("invite-hours").value));
      at("invite-url").value = made.url;
      at("invite-made").hidden = false;
      at("invite-copy").textContent = "Copy";
      at("invite-url").select();
    } catch (fault) {
      at("invite-error").textContent = fault.message;
      return;
    }
    await this.#list();
  }

  async #copy() {
    at("invite-url").select();
    try {
      await navigator.clipboard.writeText(at("invite-url").value);
      at("invite-copy").textContent = "Copied";
    } catch {
      at("invite-copy").textContent = "Press Ctrl+C";
    }
  }

  /** Draws the links; false where the gateway wants to know who asks. */
  async #list() {
    let links;
    try {
      links = await this.#api.invitations();
    } catch (fault) {
      if (fault.status === 401) {
        this.#askForToken();
        return false;
      }
      at("invite-error").textContent = fault.message;
      return true;
    }
    at("invite-links").replaceChildren(...links.map((link) => this.#row(link)));
    at("invite-none").hidden = links.length > 0;
    return true;
  }

  #row(link) {
    const until = new Date(link.expires).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const text = element("span", { textContent: `Until ${until}` });
    const revoke = element("button", { type: "button", className: "quiet danger", textContent: "Revoke" });
    revoke.setAttribute("aria-label", `Revoke the link that is good until ${until}`);
    revoke.addEventListener("click", async () => {
      try {
        await this.#api.revoke(link.id);
      } catch (fault) {
        at("invite-error").textContent = fault.message;
      }
      await this.#list();
      at("invite-hours").focus();
    });
    return element("li", {}, text, revoke);
  }
}
