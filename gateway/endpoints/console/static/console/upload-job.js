// One upload of the queue, and what is kept of it. No DOM.

import { Speed } from "./upload-speed.js";

/** Return a job: `record` is what `recordOf` returns, `file` null where it has to be chosen again. */
export function newJob(record, file) {
  return {
    ...record, file, state: "", sent: 0, durable: 0, error: "", status: 0, note: "", final: false, waitsUntil: 0,
    result: null, uploadId: null, stop: null, speed: new Speed(),
  };
}

/** What is kept of an upload until it has ended. No token, no cookie; the key is of no use without. */
export function recordOf({ key, path, relative, size, lastModified, type, begun, handle, root }) {
  return { key, path, relative, size, lastModified, type, begun, handle, root };
}

/** What makes a file that is chosen again the same one. */
export function identityOf(relative, { size, lastModified }) {
  return JSON.stringify([relative, size, lastModified]);
}
