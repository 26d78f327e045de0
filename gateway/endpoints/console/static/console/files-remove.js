// Removes files: asks first, sends a few requests at a time, and says what became of each.

import { announce, byId, element } from "../dom.js";
import { confirm } from "./dialog.js";
import { quotedName } from "./files-names.js";
import { notify } from "./notify.js";
import { t, tn } from "./texts.js";

const AT_A_TIME = 4;
const SHOWN_NAMES = 5;

/** Ask, and remove files; show progress in `place`. Return the paths that are gone, null where nothing was done. */
export async function removeFiles(source, entries, place) {
  const files = entries.filter(({ kind }) => kind === "file");
  if (!files.length) {
    place.replaceChildren(element("p", { role: "alert" }, t("Only files are deleted, not folders.")));
    return null;
  }
  if (!(await agreed(files, entries.length - files.length))) return null;
  const gone = [];
  const failed = [];
  const progress = element("progress", { max: files.length, value: 0, "aria-label": t("Deleting files") });
  const count = element("span", {});
  place.replaceChildren(element("div", { class: "row" }, progress, count));
  const waiting = [...files];
  const work = async () => {
    for (let entry = waiting.shift(); entry; entry = waiting.shift()) {
      const failure = await removeFile(source, entry);
      if (failure) failed.push([entry, failure]);
      if (!failure || failure.gone) gone.push(entry.path);
      progress.value = gone.length + failed.length;
      count.textContent = t("{done} of {all}", { done: progress.value, all: files.length });
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  report(place, gone.length - failed.filter(([, failure]) => failure.gone).length, failed);
  return gone;
}

function agreed(files, folders) {
  const shown = files.slice(0, SHOWN_NAMES).map(({ name }) => quotedName(name));
  const more = files.length - shown.length;
  const lines = [
    ...shown,
    more > 0 && tn("and {count} more", "and {count} more", more),
    folders > 0 && t("Folders that are selected stay."),
    t("This cannot be undone."),
  ];
  const title = tn("Delete {count} file?", "Delete {count} files?", files.length);
  const action = tn("Delete {count} file", "Delete {count} files", files.length);
  return confirm({ title, text: lines.filter(Boolean), action, danger: true });
}

/** Remove a file; return null, or why it stays (`gone`: it was not there any more). */
async function removeFile(source, entry) {
  try {
    await source.remove(entry);
    return null;
  } catch (error) {
    if (error.status === 404) return { gone: true, text: t("It was gone already.") };
    if (error.status === 412) return { text: t("It has changed since it was listed, so it was kept. Refresh to see it.") };
    if (error.status === 403) return { text: t("You may not delete it: {message}", { message: error.message }) };
    return { text: t(error.message) };
  }
}

function report(place, count, failed) {
  const text = tn("{count} file deleted.", "{count} files deleted.", count);
  if (!failed.length) {
    place.replaceChildren();
    notify(text);
    return;
  }
  announce(`${text} ${tn("{count} was not deleted.", "{count} were not deleted.", failed.length)}`);
  place.replaceChildren(element("div", { class: "files-report" },
    element("p", {}, text),
    element("ul", { class: "files-failures" }, failed.map(([{ name }, failure]) => element("li", {}, `${quotedName(name)}: `, failure.text))),
    element("button", { type: "button", class: "plain small", onclick: close }, t("Close")),
  ));
  function close() {
    place.replaceChildren();
    byId("main").focus();
  }
}
