// The bar below the list while files are selected: one archive of them, their removal.

import { element } from "../dom.js";
import { bytes } from "./format.js";
import { MAX_ZIP_FILES } from "./files-source.js";
import { t, tn } from "./texts.js";

/** Return `{ element, show(entries) }`. `on` has `folder()`, `remove()`, `clear()`. */
export function selectionBar(source, on) {
  const count = element("p", { class: "files-count" });
  const actions = element("div", { class: "row" });
  const bar = element("section", { class: "files-bar", hidden: true, "aria-label": t("Selected files") }, count, actions);
  return { element: bar, show };

  function show(entries) {
    const files = entries.filter(({ kind }) => kind === "file");
    bar.hidden = entries.length === 0;
    if (bar.hidden) return;
    count.textContent = `${tn("{count} selected", "{count} selected", entries.length)} · ${bytes(files.reduce((sum, entry) => sum + entry.bytes, 0))}`;
    actions.replaceChildren(...[
      ...downloads(entries, files),
      source.deletes && files.length > 0 && element("button", { type: "button", class: "danger", onclick: on.remove }, t("Delete")),
      element("button", { type: "button", class: "plain", onclick: on.clear }, t("Clear")),
    ].filter(Boolean));
  }

  function downloads(entries, files) {
    if (!source.downloads) return [];
    const link = (url, text) => element("a", { class: "button", href: url, download: true }, text);
    if (entries.length === 1) {
      const [entry] = entries;
      const url = files.length ? source.url(entry) : source.zipUrl(entry);
      return url ? [link(url, files.length ? t("Download") : t("Download as zip"))] : [];
    }
    if (files.length < entries.length) return [element("p", { class: "muted" }, t("Folders are downloaded one at a time."))];
    const zip = source.zipUrl(on.folder(), files.map(({ name }) => name));
    if (zip) return [link(zip, t("Download as zip"))];
    return [element("p", { class: "muted" }, t("One archive has at most {count} files, fewer with long names: select fewer, or download the folder.", { count: MAX_ZIP_FILES }))];
  }
}
