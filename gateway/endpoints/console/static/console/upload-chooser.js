// Where files come from: two buttons, and the whole page for what is dropped or pasted.

import { element } from "../dom.js";
import { chosen, pastedName, transferred } from "./upload-files.js";
import { icon } from "./upload-icons.js";
import { acceptOf, limitsOf } from "./upload-limits.js";
import { t } from "./texts.js";

export class Chooser {
  #take;
  #place;
  #files;
  #folder;
  #fault = element("p", { class: "fault", role: "alert" });
  #veil = element("div", { class: "veil", hidden: true, "aria-hidden": "true" });
  #depth = 0;
  add;
  element;

  /** `take(batches)` is given an iterable, or an asynchronous one, of lists of `{ file, relative }`. */
  constructor(place, uploads, take) {
    this.#place = place;
    this.#take = take;
    this.#files = this.#input("choose-files", { accept: acceptOf(uploads) || undefined });
    this.#folder = this.#input("choose-folder", { webkitdirectory: true });
    this.add = element("button", { type: "button", class: "add", id: "add-files", onclick: () => this.choose(false) },
      icon("up"), t("Add files"));
    const hasFolders = "webkitdirectory" in HTMLInputElement.prototype && !matchMedia("(pointer: coarse)").matches;
    const chooseFolder = () => this.choose(true);
    const addFolder = element("button", { type: "button", class: "plain", hidden: !hasFolders, onclick: chooseFolder },
      t("Add a folder"));
    this.element = element("section", { class: "chooser", "aria-labelledby": "chooser-title" },
      element("div", { class: "chooser-art" }, icon("up")),
      element("h2", { id: "chooser-title" }, element("span", { class: "with-mouse" }, t("Drop files or folders here")),
        element("span", { class: "with-touch" }, t("Upload files"))),
      element("p", { class: "muted promise" }, t("Large ones too: what is interrupted goes on by itself.")),
      element("div", { class: "row chooser-buttons" }, this.add, addFolder),
      element("p", { class: "muted limits" }, limitsOf(uploads).join(" ")),
      element("div", { class: "place" }, place.fields),
      this.#fault, this.#files, this.#folder);
    this.#listen();
  }

  /** Open the dialog of the browser. */
  choose(folder) {
    if (this.#isPlaced()) (folder ? this.#folder : this.#files).click();
  }

  fault(text) {
    this.#fault.textContent = text;
  }

  /** Large while nothing is uploaded, then a strip above the list. */
  draw(hasUploads) {
    this.element.classList.toggle("strip", hasUploads);
  }

  #isPlaced() {
    this.fault("");
    if (this.#place.check()) return true;
    this.fault(t("Fill in where the files go first."));
    return false;
  }

  #input(id, attributes) {
    const onchange = () => {
      const files = chosen(input.files);
      input.value = "";
      this.#take([files]);
    };
    const input = element("input", {
      type: "file", id, multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", ...attributes, onchange,
    });
    return input;
  }

  #listen() {
    document.body.append(this.#veil);
    addEventListener("dragenter", (event) => this.#over(event, 1));
    addEventListener("dragleave", (event) => this.#over(event, -1));
    addEventListener("dragover", (event) => { if (hasFiles(event.dataTransfer)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      if (!hasFiles(event.dataTransfer)) return;
      event.preventDefault();
      this.#depth = 0;
      this.#veil.hidden = true;
      if (this.#isPlaced()) this.#take(transferred(event.dataTransfer));
    });
    addEventListener("paste", (event) => {
      if (!event.clipboardData?.files.length) return;
      event.preventDefault();
      if (this.#isPlaced()) this.#take(named(transferred(event.clipboardData)));
    });
  }

  #over(event, step) {
    if (!hasFiles(event.dataTransfer)) return;
    this.#depth = Math.max(0, this.#depth + step);
    this.#veil.hidden = this.#depth === 0;
    const text = t("Drop them to upload into {folder}", { folder: this.#place.shown });
    this.#veil.replaceChildren(element("p", {}, icon("up"), text));
  }
}

function hasFiles(data) {
  return data?.types.includes("Files");
}

async function* named(batches) {
  for await (const batch of batches) {
    yield batch.map((item) => {
      const isAlone = item.file && !item.relative.includes("/");
      return isAlone ? { ...item, relative: pastedName(item.file) } : item;
    });
  }
}
