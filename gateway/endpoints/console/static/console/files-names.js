// Names of files as text: what would reorder or hide characters is shown by its number.

import { element } from "../dom.js";

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Return a name in which every character is visible and stands where it is: "a[U+202E]txt.exe". */
export function shownName(name) {
  return name.replace(HIDDEN, (character) => `[U+${character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);
}

/** Return a name for the middle of a sentence: its direction does not reach beyond it. */
export function quotedName(name) {
  return `\u2068${shownName(name)}\u2069`;
}

/** Return an element with a name. */
export function nameElement(name) {
  return element("bdi", { class: "files-text" }, shownName(name));
}

/** Return the parts of a path from a folder on: `[["Files", "/upload/"], ["a", "/upload/a/"]]`. */
export function crumbs(path, home, homeName) {
  const below = path.startsWith(home);
  const parts = below ? [[homeName, home]] : [["/", "/"]];
  let reached = below ? home : "/";
  for (const name of path.slice(reached.length).split("/").filter(Boolean)) {
    reached += `${name}/`;
    parts.push([shownName(name), reached]);
  }
  return parts;
}

const KINDS = [
  ["image", /\.(png|jpe?g|gif|webp|avif|bmp|ico|svg)$/i, /^image\/(png|jpeg|gif|webp|avif|bmp|x-icon|vnd\.microsoft\.icon|svg\+xml)$/],
  ["audio", /\.(mp3|m4a|ogg|oga|opus|wav|flac|aac)$/i, /^audio\//],
  ["video", /\.(mp4|m4v|webm|ogv|mov)$/i, /^video\//],
  ["text", /\.(txt|md|csv|tsv|log|json|jsonl|ya?ml|toml|ini|conf|cfg|xml|html?|css|js|ts|py|sh|sql|rst|tex|srt|diff|patch)$/i,
    /^(text\/|application\/(json|xml|yaml|x-yaml|toml|sql|javascript|x-ndjson|x-sh)$|application\/.*\+(json|xml)$)/],
];

/** Return what a file is shown as: "image", "audio", "video", "text", or "" for anything else. */
export function kindOf({ name, mime }) {
  const type = (mime ?? "").split(";")[0].trim().toLowerCase();
  const known = type && type !== "application/octet-stream";
  return KINDS.find(([, suffix, types]) => (known ? types.test(type) : suffix.test(name)))?.[0] ?? "";
}
