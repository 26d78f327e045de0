// Files that a person chooses, drops or pastes, folder by folder: nothing is listed before its turn.

const BATCH = 200;

/** Return `{ file, relative }` of what an `<input type=file>` has. Folders keep their paths. */
export function chosen(files) {
  return Array.from(files, (file) => ({ file, relative: file.webkitRelativePath || file.name }));
}

/**
 * Return what was dropped or pasted, as a generator of batches of `{ file, relative, handle, root }`, or
 * `{ relative, fault }` where something cannot be read. Call it in the handler of the event: its list is gone after it.
 */
export function transferred(data) {
  const items = Array.from(data.items ?? []).filter((item) => item.kind === "file");
  const sources = items.map((item) => ({
    handle: item.getAsFileSystemHandle?.()?.catch(() => null), // Chromium, over HTTPS: it can be kept over a reload
    entry: item.webkitGetAsEntry?.(),
    file: item.getAsFile(),
  }));
  const files = sources.length ? [] : [...data.files];
  return batches(walk(sources, files));
}

/** Return the file behind a kept handle; null where the person does not allow it, or it is not there any more. */
export async function reopened({ handle, root }) {
  try {
    for (const one of [root, handle].filter(Boolean)) {
      if ((await one.queryPermission({ mode: "read" })) === "granted") break;
      if ((await one.requestPermission({ mode: "read" })) === "granted") break;
      return null;
    }
    return await handle.getFile();
  } catch {
    return null;
  }
}

/** Whether files that are pasted come without a name of their own, as pictures do. */
export function pastedName(file, when = new Date()) {
  if (!/^image\.\w+$/.test(file.name)) return file.name;
  const stamp = when.toISOString().slice(0, 19).replace(/[:T]/g, "-");
  return file.name.replace(/^image/, `pasted-${stamp}`);
}

async function* walk(sources, files) {
  for (const file of files) yield { file, relative: file.name };
  for (const source of sources) {
    const handle = await source.handle;
    if (handle) yield* walkHandle(handle, "", null);
    else if (source.entry) yield* walkEntry(source.entry, "");
    else if (source.file) yield { file: source.file, relative: source.file.name };
  }
}

async function* walkHandle(handle, folder, root) {
  const relative = folder + handle.name;
  try {
    if (handle.kind === "file") {
      yield { file: await handle.getFile(), relative, handle, root };
      return;
    }
    for await (const child of handle.values()) yield* walkHandle(child, `${relative}/`, root ?? handle);
  } catch (fault) {
    yield { relative, fault };
  }
}

async function* walkEntry(entry, folder) {
  const relative = folder + entry.name;
  try {
    if (entry.isFile) {
      yield { file: await new Promise((resolve, reject) => entry.file(resolve, reject)), relative };
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      // A reader gives a hundred entries at a time, then none.
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) return;
      for (const child of some) yield* walkEntry(child, `${relative}/`);
    }
  } catch (fault) {
    yield { relative, fault };
  }
}

async function* batches(items) {
  let batch = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length) yield batch;
}
