// What a file looks like, without running anything of it: pictures come as blobs into an image, text as text.

import { element } from "../dom.js";
import { bytes } from "./format.js";
import { shownName } from "./files-names.js";
import { answer } from "./files-source.js";
import { t } from "./texts.js";

const MAX_IMAGE_BYTES = 32 << 20;
const MAX_TEXT_BYTES = 64 << 10;

/** The types of images that the gateway's word is taken for: a blob of another type would not be an image. */
const IMAGE_TYPES = {
  png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp",
  avif: "image/avif", bmp: "image/bmp", ico: "image/x-icon", svg: "image/svg+xml",
};

/** Fill `place` with a preview of a file at `url`. What it holds is given back when `signal` is aborted. */
export async function preview(place, entry, kind, url, signal) {
  const show = { image, text, audio: media, video: media }[kind];
  if (!show) {
    place.replaceChildren(element("p", { class: "muted" }, t("There is no preview of this type.")),
      element("button", { type: "button", class: "plain small", onclick: () => preview(place, entry, "text", url, signal) }, t("Show its beginning as text")));
    return;
  }
  place.setAttribute("aria-busy", "true");
  try {
    await show(place, entry, url, signal, kind);
  } catch (error) {
    if (error.name !== "AbortError") place.replaceChildren(element("p", { class: "muted", role: "alert" }, t(error.message)));
  } finally {
    place.removeAttribute("aria-busy");
  }
}

async function image(place, entry, url, signal) {
  if (entry.bytes > MAX_IMAGE_BYTES) {
    place.replaceChildren(note(t("The picture is too large for a preview: it has {size}.", { size: bytes(entry.bytes) })));
    return;
  }
  const data = await (await answer(url, { signal })).arrayBuffer();
  const suffix = entry.name.toLowerCase().split(".").at(-1);
  const declared = (entry.mime ?? "").split(";")[0].toLowerCase();
  const type = Object.values(IMAGE_TYPES).includes(declared) ? declared : IMAGE_TYPES[suffix] ?? "image/png";
  const source = URL.createObjectURL(new Blob([data], { type }));
  signal.addEventListener("abort", () => URL.revokeObjectURL(source));
  const shown = element("img", { src: source, alt: t("Preview of {name}", { name: shownName(entry.name) }) });
  shown.addEventListener("error", () => place.replaceChildren(note(t("The browser cannot show this picture."))));
  place.replaceChildren(shown);
}

async function text(place, entry, url, signal) {
  const some = entry.bytes > MAX_TEXT_BYTES;
  // An empty file has no range (RFC 9110 section 14.1.2).
  const headers = entry.bytes > 0 ? { Range: `bytes=0-${MAX_TEXT_BYTES - 1}` } : {};
  const response = await answer(url, { signal, headers });
  const data = new Uint8Array(await response.arrayBuffer()).subarray(0, MAX_TEXT_BYTES);
  if (data.includes(0)) {
    place.replaceChildren(note(t("This is not text.")));
    return;
  }
  const content = new TextDecoder("utf-8").decode(data, { stream: some });
  place.replaceChildren(element("div", {},
    element("pre", { class: "files-content", tabindex: "0", "aria-label": t("Text of {name}", { name: shownName(entry.name) }) }, content),
    entry.bytes === 0 && note(t("The file is empty.")),
    some && note(t("The first {part} of {size}", { part: bytes(MAX_TEXT_BYTES), size: bytes(entry.bytes) })),
  ));
}

async function media(place, entry, url, signal, kind) {
  const player = element(kind, { src: url, controls: true, preload: "metadata", "aria-label": t("Preview of {name}", { name: shownName(entry.name) }) });
  signal.addEventListener("abort", () => { player.removeAttribute("src"); player.load(); });
  player.addEventListener("error", () => { if (!signal.aborted) place.replaceChildren(note(t("The browser cannot play this file."))); });
  place.replaceChildren(player);
}

function note(content) {
  return element("p", { class: "muted" }, content);
}
