// Sends the bytes of a photo to a signed URL of the gateway, so that they go on after a break.
// The protocol is draft-ietf-httpbis-resumable-upload: a PUT without bytes creates the upload, HEAD tells
// how many bytes are on stable storage, PATCH appends the rest.

import { ApiError } from "./api.js";

const GONE = new Set([404, 410]);
/** The file is there: an earlier attempt arrived, and only its response was lost. */
const ARRIVED = new Set([409, 412]);
const STALLED = 60_000;

/** Sends what is missing of `job.file`; `job.address` and `job.sent` are kept from attempt to attempt. */
export async function sendRest(job, { s3PutObjectUrl, headers }, reachable, progressed) {
  let found = job.address && (await look(job));
  if (!found) {
    const created = await create(job, s3PutObjectUrl, headers);
    if (created === null) return;
    job.address = reachable(created);
    found = { offset: 0, complete: false };
  }
  if (found.complete) return;
  job.sent = found.offset;
  progressed();
  await append(job, found.offset, progressed);
}

/** Removes what has come of an upload that is not wanted any more; it expires by itself otherwise. */
export function forget(job) {
  if (job.address) fetch(job.address, { method: "DELETE", keepalive: true }).catch(() => {});
  job.address = null;
}

/** One PUT of the whole file, for the storage of others. */
export async function sendWhole(job, { s3PutObjectUrl, headers }, progressed) {
  const request = await send(job, "PUT", s3PutObjectUrl, headers, job.file, 0, progressed);
  if (!isOk(request) && !ARRIVED.has(request.status)) throw faultOf(request);
}

async function create(job, url, headers) {
  const told = { ...headers, "Upload-Complete": "?0", "Upload-Length": String(job.file.size) };
  const request = await send(job, "PUT", url, told, null, 0, () => {});
  if (ARRIVED.has(request.status)) return null;
  if (!isOk(request)) throw faultOf(request);
  return request.getResponseHeader("Location");
}

async function look(job) {
  const request = await send(job, "HEAD", job.address, {}, null, 0, () => {});
  if (GONE.has(request.status)) return null;
  const offset = request.getResponseHeader("Upload-Offset");
  if (offset === null) throw faultOf(request);
  return { offset: Number(offset), complete: request.getResponseHeader("Upload-Complete") === "?1" };
}

async function append(job, offset, progressed) {
  const told = {
    "Content-Type": "application/partial-upload",
    "Upload-Offset": String(offset),
    "Upload-Complete": "?1",
  };
  const request = await send(job, "PATCH", job.address, told, job.file.slice(offset), offset, progressed);
  if (isOk(request)) return;
  // Another offset: the next attempt asks for it. A name that is taken: the photo is there.
  if (request.status === 409 && request.getResponseHeader("Upload-Complete") === "?0") throw new ApiError(0, BROKEN);
  if (!ARRIVED.has(request.status)) throw faultOf(request);
}

/** XMLHttpRequest, for fetch tells no progress. A request in which nothing moves for a minute fails. */
function send(job, method, url, headers, body, before, progressed) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = 0;
    const moved = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), STALLED);
    };
    const stop = () => request.abort();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => {
      moved();
      job.sent = before + event.loaded;
      progressed();
    };
    request.onload = () => resolve(request);
    request.onerror = () => reject(new ApiError(0, BROKEN));
    request.onabort = () => reject(job.stop.signal.aborted ? job.stop.signal.reason : new ApiError(0, BROKEN));
    request.onloadend = () => {
      clearTimeout(timer);
      job.stop.signal.removeEventListener("abort", stop);
    };
    job.stop.signal.addEventListener("abort", stop);
    moved();
    request.send(body);
  });
}

function isOk(request) {
  return request.status >= 200 && request.status < 300;
}

/** The gateway tells its reasons in JSON; a bucket in words that are not for people. */
function faultOf(request) {
  const retryAfter = Number(request.getResponseHeader("Retry-After")) || 0;
  try {
    const { error, message } = JSON.parse(request.responseText);
    const fault = new ApiError(request.status, error === "expired" ? RUN_OUT : `Refused: ${message}.`, retryAfter);
    return Object.assign(fault, { expired: error === "expired" });
  } catch {
    const expired = request.status === 403;
    const text = expired ? RUN_OUT : `The storage answered ${request.status}.`;
    return Object.assign(new ApiError(request.status, text, retryAfter), { expired });
  }
}

const BROKEN = "The connection broke.";
const RUN_OUT = "The permission to upload has run out. Try again.";
