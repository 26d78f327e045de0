// The page `links`: drop links and share links, what came through them, and their end.

import { element } from "../dom.js";
import { get, remove } from "./api.js";
import { confirm } from "./dialog.js";
import { bytes, moment } from "./format.js";
import { offerLink } from "./link-dialog.js";
import { dayAndHour } from "./link-words.js";
import { notify, openPage } from "./shell.js";
import { rows } from "./table.js";
import { number, t, tn } from "./texts.js";
import { shownName } from "./upload-words.js";

const STATES = {
  active: () => ["good", t("In force")],
  expired: () => ["", t("Expired")],
  revoked: () => ["", t("Revoked")],
};

const KINDS = {
  drop: () => t("Drop: for sending files"),
  share: () => t("Share: for reading files"),
};

openPage(() => t("Links"), (main) => new LinksPage(main).open(), { role: "operator" });

class LinksPage {
  #main;
  #state;
  #list;

  constructor(main) {
    this.#main = main;
    const option = (value, text) => element("option", { value }, text);
    this.#state = element("select", { id: "link-state", onchange: () => this.#list.reload() },
      option("active", t("In force")), option("", t("All")), option("expired", t("Expired")), option("revoked", t("Revoked")));
    this.#list = rows({
      label: t("Links"),
      columns: [
        { title: t("Folder"), kind: "head", cell: (link) => element("bdi", { class: "path" }, shownName(link.folder)) },
        { title: t("For"), cell: kindOf },
        { title: t("Came through"), cell: cameThrough },
        { title: t("Ends"), cell: endOf },
        { title: t("Made"), cell: (link) => made(link) },
        { title: "", kind: "fit", cell: (link) => this.#revoke(link) },
      ],
      load: (cursor) => this.#load(cursor),
      empty: this.#empty(),
    });
  }

  open() {
    const make = (kind, label, plain) =>
      element("button", { type: "button", class: plain ? "plain" : "", onclick: () => this.#make(kind) }, label);
    this.#main.append(
      element("div", { class: "toolbar" },
        element("h2", {}, t("Links")),
        element("label", { for: "link-state" }, t("Show")), this.#state,
        make("share", t("New share link"), true), make("drop", t("New drop link"))),
      element("p", { class: "muted" }, t("For people without a token: a drop link is for sending files, a share link for reading a folder.")),
      this.#list);
  }

  async #load(cursor) {
    const { links, next } = await get("links", { cursor, state: this.#state.value || undefined });
    return { rows: links, next };
  }

  #empty() {
    return element("div", { class: "empty" },
      element("h3", {}, t("No links here")),
      element("p", {}, t("Make one, and send it to the person: a drop link to get files, a share link to give some.")));
  }

  async #make(kind) {
    if (await offerLink({ kind })) this.#list.reload();
  }

  #revoke(link) {
    if (link.state !== "active") return "";
    return element("button", {
      type: "button", class: "plain small", "aria-label": t("Revoke the link for {folder}", { folder: shownName(link.folder) }),
      onclick: () => this.#askToRevoke(link),
    }, t("Revoke"));
  }

  async #askToRevoke(link) {
    const agreed = await confirm({
      title: t("Revoke the link for {folder}?", { folder: shownName(link.folder) }),
      text: [
        t("It ends at once, for everybody who has it."),
        link.kind === "drop" ? t("What was sent stays.") : t("Downloads that run come to their end."),
      ],
      action: t("Revoke the link"), danger: true,
      submit: () => remove(`links/${link.id}`),
    });
    if (!agreed) return;
    notify(t("The link is revoked"));
    this.#list.reload();
  }
}

function kindOf(link) {
  const limits = [
    link.password && t("with a password"),
    link.last_used === null && t("not used yet"),
  ].filter(Boolean).join(", ");
  return element("div", {}, KINDS[link.kind](), limits && element("p", { class: "muted" }, limits));
}

function cameThrough(link) {
  if (link.kind === "share") {
    return tn("{count} download", "{count} downloads", link.downloads);
  }
  const files = link.max_files === null ? tn("{count} file", "{count} files", link.files)
    : tn("{used} of {count} file", "{used} of {count} files", link.max_files, { used: number(link.files) });
  const size = link.max_bytes === null ? bytes(link.bytes)
    : t("{used} of {limit}", { used: bytes(link.bytes), limit: bytes(link.max_bytes) });
  return element("div", {}, files, element("p", { class: "muted" }, size));
}

function endOf(link) {
  const [kind, word] = STATES[link.state]();
  const tag = element("span", { class: `tag ${kind}` }, word);
  const when = link.state === "revoked" ? link.revoked : link.expires;
  const line = when ? dayAndHour(when) : t("when it is revoked");
  return element("div", {}, tag, element("p", { class: "muted" }, line));
}

function made(link) {
  return element("div", {}, moment(link.created),
    element("p", { class: "muted" }, link.creator ? shownName(link.creator) : t("on the machine")));
}
