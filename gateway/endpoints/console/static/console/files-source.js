// Where the files come from: for an operator with a name `/-/files`, for others the lists of the upload paths.

import { API, ApiError, address, call, get } from "./api.js";
import { t } from "./texts.js";

const ROOT = new URL("..", API);
const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** Entries of a page: what the gateway gives at most. */
const PAGE_ENTRIES = 1000;

/** Files that one archive names, and characters that its URL has: headers of requests are bounded. */
export const MAX_ZIP_FILES = 500;
const MAX_ZIP_URL = 12_000;

/** Return what lists files for this session, null where nothing does. */
export function chooseSource(session) {
  const { features, uploads, role, principal } = session;
  const operator = role === "operator" && principal !== null;
  if (operator) return new FileSource(features, "/upload/", true);
  return features.listing && uploads.folder ? new FileSource(features, uploads.folder, false) : null;
}

/** Lists, describes and removes files. `home` is the folder where a person begins. */
class FileSource {
  constructor(features, home, operator) {
    Object.assign(this, { home, operator });
    this.downloads = features.downloads;
    this.deletes = operator || features.deletes;
  }

  /**
   * Return a page of a folder: `{ path, url, entries, next, searched }`. A folder has the `place` at which this source
   * lists it: uploads may be stored at other paths than those of their URLs. Raises `ApiError`.
   */
  async list(path, { cursor, search, signal } = {}) {
    const query = { limit: PAGE_ENTRIES, cursor, search: search || undefined };
    const page = this.operator
      ? await get("files", { path, ...query }, { signal })
      : await call("GET", address(new URL(encodedPath(path).slice(1), ROOT), query), { signal });
    const entries = page.entries.map((entry) => (entry.kind === "folder" ? { ...entry, place: this.placeOf(entry) } : entry));
    return { ...page, entries };
  }

  placeOf(folder) {
    return this.operator ? folder.path : `/${decodeURIComponent(this.url(folder).pathname.slice(ROOT.pathname.length))}`;
  }

  /** Return an entry with all that is told of it: type, digest, and for operators metadata. */
  async describe(entry, { signal } = {}) {
    if (this.operator) return { ...entry, ...(await get("files", { path: entry.path }, { signal })), name: entry.name };
    if (!this.downloads) return entry;
    const head = await answer(this.url(entry), { method: "HEAD", signal });
    const told = (name) => head.headers.get(name) ?? undefined;
    return {
      ...entry,
      bytes: Number(told("Content-Length") ?? entry.bytes),
      etag: told("ETag")?.replaceAll('"', "") ?? entry.etag,
      mime: told("Content-Type") ?? entry.mime,
      digest: told("Repr-Digest") ?? entry.digest,
      modified: entry.modified ?? new Date(told("Last-Modified")).toISOString(),
    };
  }

  /** Describe a file that is on no page of the list so far. Raises `ApiError`. */
  find(folder, name) {
    const path = `${folder}${name}`;
    const url = new URL(encodedPath(`${path}/`).slice(1, -1), ROOT).href;
    if (!this.operator && !this.downloads) throw new ApiError(404, "not_found", t("There is no such file."));
    return this.describe({ name, kind: "file", path, url });
  }

  /** Remove the version of a file that was listed. Raises `ApiError`: 412 where it is another one now. */
  remove(entry, { signal } = {}) {
    const url = this.operator ? address("files", { path: entry.path }) : this.url(entry);
    return call("DELETE", url, { signal, headers: { "If-Match": `"${entry.etag}"` } });
  }

  /** Return the URL of a file or folder below the address of this page, whatever the gateway calls itself. */
  url(entry) {
    const path = new URL(entry.url).pathname;
    return new URL(path.startsWith(ROOT.pathname) ? path.slice(ROOT.pathname.length) : path.slice(1), ROOT);
  }

  /** Return the URL of an archive of a folder, or of these names in it; null where there is none. */
  zipUrl(folder, names = []) {
    const url = this.url(folder);
    if (!this.downloads || url.pathname.startsWith(`${API.pathname}objects/`) || names.length > MAX_ZIP_FILES) return null;
    const archive = address(url, { format: "zip", file: names });
    return archive.href.length > MAX_ZIP_URL ? null : archive;
  }
}

/** Fetch a file, or a part of it. Raises `ApiError`. */
export async function answer(url, options = {}) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", t("The gateway does not answer."));
  }
  if (response.ok) return response;
  const message = await response.json().then((body) => body.message, () => null);
  throw new ApiError(response.status, "unknown", message ?? t("The gateway answered with the status {status}.", { status: response.status }));
}

/** Return the id of the upload that made this version of a file, null where the gateway does not have it any more. */
export async function uploadBehind(entry) {
  const changed = Date.parse(entry.modified) / 1000;
  // An id begins with the time of its upload: the page below that of the file has it, unless it took an hour.
  const page = await get("uploads", { since: Math.floor(changed) - 3600, cursor: idPrefix(changed + 2), limit: 500 });
  return page.uploads.find(({ path, etag }) => path === entry.path && etag === entry.etag)?.upload_id ?? null;
}

/** Return a path as a URL has it. Raises `ApiError` for one that no folder has. */
export function encodedPath(path) {
  const [first, ...names] = path.split("/");
  const wrong = first !== "" || names.slice(0, -1).some((name) => name === "" || name === "." || name === "..");
  if (wrong || names.at(-1) !== "") throw new ApiError(404, "not_found", t("There is no such folder."));
  return path.split("/").map((name) => encodeURIComponent(name).replaceAll("'", "%27")).join("/");
}

function idPrefix(seconds) {
  let left = Math.max(0, Math.floor(seconds * 1000));
  let text = "";
  for (let digit = 0; digit < 10; digit += 1) {
    text = CROCKFORD[left % 32] + text;
    left = Math.floor(left / 32);
  }
  return text;
}
