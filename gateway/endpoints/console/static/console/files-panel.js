// One file: what is known of it, a preview, and what can be done with it. A dialog at the side of the page.

import { copyButton, element } from "../dom.js";
import { API } from "./api.js";
import { bytes, moment } from "./format.js";
import { kindOf, nameElement } from "./files-names.js";
import { preview } from "./files-preview.js";
import { uploadBehind } from "./files-source.js";
import { t } from "./texts.js";

export class FilePanel {
  /** `on` has `close()`, `beside(entry, by)`, `step(entry, by)`, `remove(entry)`; `authorization` is that of the session. */
  constructor(source, authorization, on) {
    Object.assign(this, { source, authorization, on });
    this.place = element("div", { class: "files-panel-content" });
    this.dialog = element("dialog", { class: "files-panel", "aria-labelledby": "file-title" }, this.place);
    this.dialog.addEventListener("close", () => {
      this.abort?.abort();
      if (!this.quiet && !this.isOpen) this.on.close();
      this.quiet = false;
    });
    // A click beside the panel closes it.
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.close(); });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    document.body.append(this.dialog);
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Close it. `quiet`: the page has gone elsewhere, so nothing is told. */
  close({ quiet = false } = {}) {
    if (!this.isOpen) return;
    this.quiet = quiet;
    this.dialog.close();
  }

  /** Show a file. */
  async open(entry) {
    this.abort?.abort();
    const { signal } = (this.abort = new AbortController());
    this.entry = entry;
    const url = this.source.downloads ? this.source.url(entry) : null;
    const shown = element("div", { class: "files-preview" });
    const facts = element("dl", { class: "facts" });
    this.place.replaceChildren(this.head(entry), shown, this.actions(entry, url), facts);
    this.place.scrollTop = 0;
    if (!this.isOpen) this.dialog.showModal();
    this.place.querySelector("h2").focus();
    facts.replaceChildren(...this.facts(entry, url));
    let described = entry;
    try {
      described = await this.source.describe(entry, { signal });
      if (!signal.aborted) facts.replaceChildren(...this.facts(described, url));
    } catch (error) {
      if (error.name === "AbortError") return;
      facts.prepend(element("p", { class: "fault", role: "alert" }, error.status === 404 ? t("This file is not there any more.") : t(error.message)));
      if (error.status === 404) return;
    }
    if (signal.aborted) return;
    this.linkUpload(described, facts, signal);
    if (url) await preview(shown, described, kindOf(described), url, signal);
    else shown.replaceChildren(element("p", { class: "muted" }, t("Previews and downloads need the setting --downloads.")));
  }

  head(entry) {
    const button = (label, mark, act, disabled = false) =>
      element("button", { type: "button", class: "plain files-mark", "aria-label": label, title: label, onclick: act, disabled }, mark);
    return element("div", { class: "files-panel-head" },
      element("h2", { id: "file-title", tabindex: "-1" }, nameElement(entry.name)),
      element("div", { class: "row" },
        button(t("Previous file"), "‹", () => this.on.step(entry, -1), !this.on.beside(entry, -1)),
        button(t("Next file"), "›", () => this.on.step(entry, 1), !this.on.beside(entry, 1)),
        button(t("Close"), "×", () => this.close())));
  }

  actions(entry, url) {
    return element("div", { class: "row files-actions" },
      url && element("a", { class: "button", href: url, download: true }, t("Download")),
      url && copyButton(t("Copy link"), () => url.href),
      url && copyButton(t("Copy curl command"), () => this.command(url)),
      this.source.deletes && element("button", { type: "button", class: "danger plain small", onclick: () => this.on.remove(entry) }, t("Delete")));
  }

  command(url) {
    const credential = this.authorization === "none" ? "" : ' -H "Authorization: Bearer $TOKEN"';
    return `curl -fOJ${credential} '${url.href.replaceAll("'", "%27")}'`;
  }

  facts(entry, url) {
    const row = (name, ...values) => [element("dt", {}, name), element("dd", {}, ...values)];
    return [
      row(t("Size"), bytes(entry.bytes), entry.bytes >= 1000 ? ` (${entry.bytes} B)` : ""),
      row(t("Changed"), moment(entry.modified)),
      row(t("Type"), entry.mime ?? t("unknown")),
      row(t("Path"), element("code", {}, nameElement(entry.path))),
      url ? row(t("Address"), element("code", {}, url.href)) : [],
      row(t("Entity tag"), element("code", {}, entry.etag)),
      entry.digest ? row(t("Digest"), element("code", {}, entry.digest)) : [],
      Object.entries(entry.metadata ?? {}).map(([name, value]) => row(`X-Amz-Meta-${name}`, element("bdi", {}, value))),
    ].flat(3);
  }

  async linkUpload(entry, facts, signal) {
    const upload = await uploadBehind(entry).catch(() => null);
    if (!upload || signal.aborted) return;
    facts.append(element("dt", {}, t("Upload")), element("dd", {}, element("a", { href: new URL(`uploads/${upload}`, API) }, t("Its timeline"))));
  }

  key(event) {
    if (event.target.closest("pre, audio, video, input")) return;
    if (event.key === "ArrowLeft") this.on.step(this.entry, -1);
    else if (event.key === "ArrowRight") this.on.step(this.entry, 1);
  }
}
