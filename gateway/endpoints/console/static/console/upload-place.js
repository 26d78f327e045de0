// Where files go: the upload path of the gateway, with what a person fills into it.

import { element } from "../dom.js";
import { API } from "./api.js";
import { t } from "./texts.js";

const ROOT = new URL("..", API).href;
const VARIABLE = /^\{(\w+)(:path)?\}$/;

/** Return the URL of an upload path, wherever a proxy has put the gateway. */
export function urlOf(path) {
  return ROOT + path.slice(1);
}

/** The target of the uploads of a page. `uploads` is that of the session. */
export class Place {
  #segments;
  #inputs = new Map();

  constructor({ template }, folder = "") {
    this.#segments = template.slice(1).split("/").map((text) => {
      const [, name, spans] = VARIABLE.exec(text) ?? [];
      return { text, name, rest: name === "filepath" || Boolean(spans), isName: name === "filename" };
    });
    for (const { name, rest, isName } of this.#segments) {
      if (rest) this.#inputs.set(name, folderField(this.#before(), folder));
      else if (name && !isName) this.#inputs.set(name, variableField(name));
    }
  }

  /** Whether folders are kept: else a file goes by its name alone. */
  get keepsFolders() {
    return this.#segments.some((segment) => segment.rest);
  }

  /** The fields that ask for what the path needs. */
  get fields() {
    return [...this.#inputs.values()].map(({ field }) => field);
  }

  /** Tell whether every field that is needed is filled in; else focus the one that is not. */
  check() {
    for (const { input } of this.#inputs.values()) {
      if (input.required && !input.value.trim()) {
        input.focus();
        input.reportValidity();
        return false;
      }
    }
    return true;
  }

  /** Return the upload path of a file, encoded: `relative` is its name below a chosen folder. */
  pathOf(relative) {
    const names = relative.split("/").filter(Boolean);
    const parts = this.#segments.flatMap(({ text, name, rest, isName }) => {
      if (rest) return [...this.#folder(name), ...names];
      if (isName) return [names.join("_")];
      return [name ? this.#inputs.get(name).input.value.trim() : text];
    });
    return `/${parts.map(encoded).join("/")}`;
  }

  /** The folder that files go to, as people read it. */
  get shown() {
    return `/${this.#segments.slice(0, -1).map(({ text }) => text).concat(this.#restFolder()).join("/")}`;
  }

  #restFolder() {
    const rest = this.#segments.find((segment) => segment.rest);
    return rest ? [...this.#folder(rest.name), ""] : [""];
  }

  #folder(name) {
    return this.#inputs.get(name).input.value.split("/").map((part) => part.trim()).filter(Boolean);
  }

  #before() {
    const end = this.#segments.findIndex((segment) => segment.rest);
    return `/${this.#segments.slice(0, end).map(({ text }) => `${text}/`).join("")}`;
  }
}

function folderField(prefix, folder) {
  const input = element("input", {
    id: "to-folder", name: "folder", value: folder.startsWith(prefix) ? folder.slice(prefix.length) : "",
    placeholder: t("optional"), autocomplete: "off", spellcheck: "false", autocapitalize: "off",
  });
  const label = element("label", { for: "to-folder" }, t("To folder"));
  const joined = element("span", { class: "joined" }, element("span", { class: "prefix" }, prefix), input);
  return { input, field: element("div", { class: "field" }, label, joined) };
}

function variableField(name) {
  const id = `variable-${name}`;
  const input = element("input", {
    id, name, required: true, autocomplete: "off", spellcheck: "false", autocapitalize: "off",
  });
  return { input, field: element("div", { class: "field" }, element("label", { for: id }, name), input) };
}

/** Return a name as a segment of a path. Half of a surrogate pair cannot be encoded. */
export function encoded(text) {
  return encodeURIComponent(text.toWellFormed?.() ?? text.replace(/[\ud800-\udfff]/gu, "\ufffd"));
}
