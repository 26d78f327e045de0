// Makes a link, for operators: asks what it is for, then shows it, once.
//
//   import { offerLink } from "./link-dialog.js";
//   await offerLink({ kind: "share", folder: "/upload/report/" });   // "drop": for uploads into the folder

import { copyButton, element } from "../dom.js";
import { post } from "./api.js";
import { ask, openDialog } from "./dialog.js";
import { bytes } from "./format.js";
import { qrCode } from "./link-qr.js";
import { dayAndHour } from "./link-words.js";
import { t, tn } from "./texts.js";

const WORDS = {
  drop: {
    title: () => t("New drop link"),
    about: () => t("Whoever gets it can send files into the folder, and sees nothing of what is there."),
    made: (folder) => t("A drop link for {folder}", { folder }),
  },
  share: {
    title: () => t("New share link"),
    about: () => t("Whoever gets it can read the files of the folder, and can change nothing."),
    made: (folder) => t("A share link for {folder}", { folder }),
  },
};

/** Ask for the terms of a link, make it, and show it. Return the link, null where the person cancels. */
export async function offerLink({ kind, folder = "" }) {
  loadStyle();
  let link = null;
  const submit = async (values) => { link = await post("links", termsOf(kind, values)); };
  const fields = [...commonFields(folder), ...(kind === "drop" ? limitFields() : []), passwordField()];
  const action = t("Make the link");
  const values = await ask({ title: WORDS[kind].title(), text: WORDS[kind].about(), fields, action, submit });
  if (values === null) return null;
  await show(link);
  return link;
}

function commonFields(folder) {
  return [
    {
      name: "folder", label: t("Folder"), value: folder, required: true, placeholder: "/upload/inbox/",
      hint: folder ? undefined : t("As the files page shows it. It need not exist yet."), autocapitalize: "off", spellcheck: "false",
    },
    {
      name: "expires", label: t("Ends"), type: "select", value: "7d",
      options: [
        ["1d", t("In a day")], ["7d", t("In a week")], ["30d", t("In 30 days")], ["90d", t("In 90 days")],
        ["never", t("When it is revoked")],
      ],
    },
  ];
}

function limitFields() {
  return [
    { name: "max_files", label: t("Files in all"), type: "number", min: 1, step: 1, inputmode: "numeric", placeholder: t("any number") },
    {
      name: "max_bytes", label: t("Size in all"), placeholder: t("any size"), pattern: "\\s*[0-9]+\\s*([kKmMgGtT]([iI]?[bB])?|[bB])?\\s*",
      hint: t("Such as 500 MB or 5 GB. What is removed counts too."),
    },
  ];
}

function passwordField() {
  return {
    name: "password", label: t("Password"), type: "password", autocomplete: "new-password", maxlength: 1000,
    placeholder: t("none"), hint: t("Give it another way than the link."),
  };
}

function termsOf(kind, { folder, expires, max_files: files, max_bytes: size, password }) {
  return {
    kind, folder: folder.trim(), expires,
    ...(files ? { max_files: files } : {}),
    ...(size?.trim() ? { max_bytes: size.trim() } : {}),
    ...(password ? { password } : {}),
  };
}

/** Show a new link until the dialog is closed. */
function show(link) {
  const url = element("input", {
    class: "link-url", type: "text", readonly: true, value: link.url, "aria-label": t("The link"), spellcheck: "false",
    onfocus: () => url.select(),
  });
  const done = element("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, t("Done"));
  const dialog = openDialog(WORDS[link.kind].made(link.folder),
    element("p", { class: "hint" }, t("It is shown only now: copy it, or read the code with a phone. Anyone who has it can use it.")),
    element("div", { class: "row link-row" }, url, copyButton(t("Copy"), () => link.url)),
    qrCode(link.qr, t("The link as a QR code")),
    element("ul", { class: "link-terms muted" }, terms(link).map((line) => element("li", {}, line))),
    element("div", { class: "buttons" }, done));
  dialog.classList.add("link-dialog");
  return new Promise((resolve) => { dialog.addEventListener("close", resolve); });
}

function terms(link) {
  return [
    link.expires ? [t("Ends"), " ", dayAndHour(link.expires)] : t("Ends when it is revoked"),
    link.max_files && tn("{count} file in all", "{count} files in all", link.max_files),
    link.max_bytes && t("{size} in all", { size: bytes(link.max_bytes) }),
    link.password && t("Asks for its password"),
  ].filter(Boolean);
}

/** The style of the dialog, on whichever page it opens. */
function loadStyle() {
  const href = new URL("link-dialog.css", import.meta.url).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  document.head.append(element("link", { rel: "stylesheet", href }));
}
