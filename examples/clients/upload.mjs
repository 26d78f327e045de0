// Uploads a file in pieces, and goes on where an interrupted attempt ended. For browsers and for Node.js:
//
//   node upload.mjs FILE URL       for example: node upload.mjs film.mp4 http://127.0.0.1:8080/upload/film.mp4
//   import { upload } from "./upload.mjs"       in a page: await upload(input.files[0], url, {onProgress})
//
// The protocol is draft-ietf-httpbis-resumable-upload. A browser cannot stream a file over HTTP/1.1 and
// tell how far it came, so the file goes in pieces: each is durable once it is answered.

const PIECE_BYTES = 8 << 20;
const LONGEST_WAIT = 30_000;
const ANSWER_TIMEOUT = 30_000;
const PIECE_TIMEOUT = 600_000;
const TRY_AGAIN = new Set([408, 423, 425, 429, 500, 502, 503, 504, 507]);

export class Refused extends Error {}

/**
 * Uploads a Blob or File to `url`; resolves to what the server answers (null: it was stored before).
 * `address` is that of an unfinished upload, `onCreated` is told it: keep it to go on after a reload.
 * `headers` go with each request, `signal` stops it, `onProgress` is told the durable and all bytes.
 */
export async function upload(file, url, { address, headers = {}, signal, onCreated, onProgress } = {}) {
  let wait = 500;
  for (;;) {
    try {
      const found = address && (await offsetOf(address, headers, signal));
      if (!found) {
        address = await create(file, url, headers, signal);
        onCreated?.(address);
      }
      if (found?.complete) return null;
      return await send(file, address, found?.offset ?? 0, headers, signal, (done) => {
        wait = 500;
        onProgress?.(done, file.size);
      });
    } catch (error) {
      if (error instanceof Refused || signal?.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }
}

async function create(file, url, headers, signal) {
  const own = { "Upload-Complete": "?0", "Upload-Length": String(file.size) };
  if (file.type) own["Content-Type"] = file.type;
  const answer = await fetch(url, { method: "POST", headers: { ...headers, ...own }, signal: within(ANSWER_TIMEOUT, signal) });
  if (answer.status !== 201) throw await errorOf(answer);
  return answer.headers.get("Location");
}

/** Resolves to the durable offset, undefined where the upload is not known any more. */
async function offsetOf(address, headers, signal) {
  const answer = await fetch(address, { method: "HEAD", headers, signal: within(ANSWER_TIMEOUT, signal) });
  if (answer.status === 404 || answer.status === 410) return undefined;
  const offset = answer.headers.get("Upload-Offset");
  if (offset === null) throw await errorOf(answer);
  return { offset: Number(offset), complete: answer.headers.get("Upload-Complete") === "?1" };
}

async function send(file, address, offset, headers, signal, onProgress) {
  for (;;) {
    onProgress(offset);
    const end = Math.min(offset + PIECE_BYTES, file.size);
    const own = {
      "Content-Type": "application/partial-upload",
      "Upload-Offset": String(offset),
      "Upload-Complete": end === file.size ? "?1" : "?0",
    };
    const body = file.slice(offset, end);
    const request = { method: "PATCH", headers: { ...headers, ...own }, body };
    const answer = await fetch(address, { ...request, signal: within(PIECE_TIMEOUT, signal) });
    if (!answer.ok) throw await errorOf(answer);
    offset = end;
    if (offset === file.size) {
      onProgress(offset);
      return answer.json();
    }
  }
}

// A connection can hang without ever failing.
function within(milliseconds, signal) {
  const timeout = AbortSignal.timeout(milliseconds);
  return signal ? AbortSignal.any([signal, timeout]) : timeout;
}

async function errorOf(answer) {
  const text = await answer.text();
  let message = text.trim() || `the answer was ${answer.status}`;
  try {
    message = JSON.parse(text).message ?? message;
  } catch {
    // not JSON: the text itself
  }
  const otherOffset = answer.status === 409 && answer.headers.get("Upload-Complete") === "?0";
  if (TRY_AGAIN.has(answer.status) || otherOffset) return new Error(message);
  return new Refused(`${answer.status}: ${message}`);
}

// -- as a program of Node.js

if (globalThis.process?.argv[1] && import.meta.url.endsWith(process.argv[1].split("/").pop())) {
  const { openAsBlob } = await import("node:fs");
  const { readFile, rm, writeFile } = await import("node:fs/promises");
  const [name, url] = process.argv.slice(2);
  if (!url) {
    console.error("usage: node upload.mjs FILE URL      (UPLOAD_TOKEN is sent as a bearer token)");
    process.exit(2);
  }
  const note = `${name}.upload`;
  const token = process.env.UPLOAD_TOKEN;
  try {
    const answer = await upload(await openAsBlob(name), url, {
      address: await readFile(note, "utf8").catch(() => undefined),
      headers: token ? { Authorization: `Bearer ${token}` } : {},
      onCreated: (address) => writeFile(note, address),
      onProgress: (done, all) => console.error(`${done} of ${all} bytes`),
    });
    await rm(note, { force: true });
    console.log(answer === null ? "it is stored already" : JSON.stringify(answer));
  } catch (error) {
    if (error instanceof Refused) await rm(note, { force: true });
    console.error(`refused: ${error.message}`);
    process.exit(1);
  }
}
