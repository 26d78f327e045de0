// Sends one file so that it is stored exactly once, whatever breaks on the way. No DOM.
//
// The protocol is our ranged PUT: `PUT <path>?resume=KEY` with `Content-Range`, in pieces. The key is random and
// chosen here before the first byte is sent. So HEAD can ask for an upload whose every answer was lost: how much
// is on stable storage, or that it is stored. Only what HEAD does not know begins at 0. The draft and tus name an
// upload in the answer to its creation; where that is lost, an upload remains that nobody can go on with.
// A browser sends a request again by itself where a connection that it has used before ends without an answer (RFC
// 9110 section 9.2.2). So what begins an upload says `begin=once`: else it would begin anew what is stored.

/** A piece is durable once it is answered; a proxy may keep that much to itself. What breaks within one is kept too. */
export const PIECE_BYTES = 16 << 20;

/** Milliseconds in which something of a request has to move. */
const STALLED = 60_000;
/** Milliseconds in which a whole file is answered: handlers may look at it first. */
const DECIDING = 900_000;
const MAX_MESSAGE = 600;
const OFFSET_MOVED = "mismatching_offset";

/** What the gateway refused: `code` is that of its table, "" where something else answered. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** There was no answer. */
export class Broken extends Error {}

/** Return a new key. (`crypto.randomUUID` needs HTTPS.) */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Return the address of an upload: that of its file, with the key. */
export function keyed(url, key) {
  const address = new URL(url, globalThis.location?.href);
  address.searchParams.set("resume", key);
  return address.href;
}

/**
 * Return what the gateway has of an upload: `{ offset, complete, uploadId }`, null where it has nothing (any more).
 * Raises `Refused`, `Broken`.
 */
export async function ask(address, headers, signal) {
  const answer = await request("HEAD", address, { headers, signal });
  const complete = answer.header("Upload-Complete");
  if (complete !== null) {
    const uploadId = /\/-\/uploads\/([^>]+)>/.exec(answer.header("Link") ?? "")?.[1] ?? null;
    return { offset: Number(answer.header("Upload-Offset") ?? 0), complete: complete === "?1", uploadId };
  }
  if (answer.status === 404 || answer.status === 405 || isOk(answer)) return null;
  throw refusalOf(answer);
}

/**
 * Send what is missing of `file` to `address`; return what the gateway answers (`upload_id`, `path`, ...). With `asks`
 * it is asked first what it has, which `onAnswer` is told. `onProgress(bytes, durable)` is told how far it is.
 * Raises `Refused`, `Broken`.
 */
export async function send(file, address, { headers, signal, asks, onProgress, onAnswer }) {
  let offset = 0;
  if (asks) {
    const found = await ask(address, headers, signal);
    if (found?.complete) return { upload_id: found.uploadId, bytes: file.size, again: true };
    offset = found?.offset ?? 0;
    onAnswer(found);
  }
  for (;;) {
    onProgress(offset, true);
    const end = Math.min(offset + PIECE_BYTES, file.size);
    const own = file.size ? { "Content-Range": `bytes ${offset}-${end - 1}/${file.size}` } : {};
    const begin = offset;
    const answer = await request("PUT", offset ? address : `${address}&begin=once`, {
      headers: { ...headers, ...own }, body: file.slice(offset, end, file.type), signal,
      onProgress: (sent) => onProgress(begin + sent, false),
    });
    const next = Number(answer.header("Upload-Offset"));
    if (answer.status === 204 && next > offset) {
      offset = next;
      continue;
    }
    if (!isOk(answer) || answer.status === 204) throw refusalOf(answer);
    onProgress(file.size, true);
    return parsed(answer.text) ?? {};
  }
}

/** Send a file in one request, to a gateway without resumable uploads. */
export async function sendWhole(file, url, { headers, signal, onProgress }) {
  const moved = (sent) => onProgress(sent, false);
  const answer = await request("PUT", url, { headers, body: file, signal, onProgress: moved });
  if (!isOk(answer)) throw refusalOf(answer);
  onProgress(file.size, true);
  return parsed(answer.text) ?? {};
}

/** Remove what has come of an upload. Raises `Broken`, `Refused`; what is not there needs no removal. */
export async function discard(address, headers) {
  const answer = await request("DELETE", address, { headers });
  if (!isOk(answer) && answer.status !== 404) throw refusalOf(answer);
  return isOk(answer);
}

/** Tell whether an upload goes on at another offset than was thought: it has to be asked for. */
export function hasMoved(fault) {
  return fault.code === OFFSET_MOVED;
}

/** XMLHttpRequest, for fetch does not tell how much of a body is sent. */
function request(method, url, { headers, body = null, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    let timer = 0;
    const patience = (milliseconds) => {
      clearTimeout(timer);
      timer = setTimeout(() => xhr.abort(), milliseconds);
    };
    const stop = () => xhr.abort();
    xhr.open(method, url);
    xhr.setRequestHeader("Accept", "application/json");
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    if (onProgress) {
      xhr.upload.onprogress = (event) => { patience(STALLED); onProgress(event.loaded); };
      xhr.upload.onload = () => patience(DECIDING);
    }
    const header = (name) => xhr.getResponseHeader(name);
    xhr.onload = () => resolve({ status: xhr.status, text: xhr.responseText, header });
    xhr.onerror = () => reject(new Broken());
    xhr.onabort = () => reject(signal?.aborted ? signal.reason : new Broken());
    xhr.onloadend = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    };
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener("abort", stop);
    patience(STALLED);
    xhr.send(body);
  });
}

function isOk(answer) {
  return answer.status >= 200 && answer.status < 300;
}

/** The words of an answer: the message of the gateway, or what a handler said. */
function refusalOf(answer) {
  const told = parsed(answer.text);
  const plain = told === undefined && !/^\s*</.test(answer.text) ? answer.text.trim() : "";
  const text = typeof told === "string" ? told : told?.message ?? told?.detail ?? told?.title ?? plain;
  const message = String(text || "").slice(0, MAX_MESSAGE);
  return new Refused(answer.status, told?.error ?? "", message, waitOf(answer.header("Retry-After")));
}

/** Seconds of `Retry-After`: a number, or a date. */
function waitOf(text) {
  if (!text) return 0;
  return /^\d+$/.test(text) ? Number(text) : Math.max(0, (Date.parse(text) - Date.now()) / 1000) || 0;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
