// What is not uploaded yet, kept over a reload of the page: in IndexedDB, as far as the browser has one. No DOM.
//
// A record has the name, size and date of a file, where it goes, and the key of its upload; where it was dropped in
// Chromium also a handle, with which the browser reads it again once the person allows that. No secrets: a key opens
// nothing without the authorization of the principal who made it.

const NAME = "upload-gateway";
const TABLE = "unfinished";
const CHANNEL = "upload-gateway-pages";
/** Records at most; the files behind them are sent all the same, and forgotten by a reload. */
const MAX_RECORDS = 10_000;
/** The gateway keeps what has come for seven days at most. */
const MAX_AGE = 7 * 86_400_000;
const ANSWER_TIME = 200;
/** A browser under load may let a database wait: uploads do not wait for it. */
const LONGEST_WAIT = 2_000;

/** The unfinished uploads of one principal: of this page, and of pages that are gone. */
export class UnfinishedUploads {
  #owner;
  #page = newPage();
  #database;
  #count = 0;

  /** `owner` names the principal: others do not see its records. */
  constructor(owner) {
    this.#owner = owner;
    this.#database = open().catch(() => null);
    answerForPage(this.#page);
  }

  /** Keep records. Resolves when they are kept, or cannot be. */
  async putAll(records) {
    if (!records.length || this.#count > MAX_RECORDS) return;
    this.#count += records.length;
    const own = { owner: this.#owner, page: this.#page, saved: Date.now() };
    await this.#change((table) => { for (const record of records) put(table, { ...record, ...own }); });
  }

  async remove(key) {
    this.#count = Math.max(0, this.#count - 1);
    await this.#change((table) => table.delete(key));
  }

  /** Return what pages left that are gone, and make it ours. */
  async take() {
    const database = await this.#database;
    if (!database) return [];
    const [alive, records] = await Promise.all([alivePages(this.#page), all(database)]);
    const left = records.filter((record) => record.owner === this.#owner && !alive.has(record.page));
    const fresh = left.filter((record) => Date.now() - record.saved < MAX_AGE);
    const kept = new Set(fresh.map((record) => record.key));
    await this.#change((table) => { for (const { key } of left) if (!kept.has(key)) table.delete(key); });
    await this.putAll(fresh);
    return fresh;
  }

  async #change(act) {
    const database = await this.#database;
    if (!database) return;
    try {
      const change = database.transaction(TABLE, "readwrite");
      act(change.objectStore(TABLE));
      await new Promise((resolve) => {
        change.oncomplete = change.onabort = change.onerror = resolve;
        setTimeout(resolve, LONGEST_WAIT);
      });
    } catch {
      // full, or closed by the browser: then a reload forgets
    }
  }
}

function put(table, record) {
  try {
    table.put(record);
  } catch {
    table.put({ ...record, handle: null, root: null }); // handles that cannot be kept
  }
}

function open() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(TABLE, { keyPath: "key" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = opening.onblocked = () => reject(opening.error);
    setTimeout(reject, LONGEST_WAIT);
  });
}

function all(database) {
  return new Promise((resolve) => {
    const asked = database.transaction(TABLE).objectStore(TABLE).getAll(null, MAX_RECORDS);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => resolve([]);
  });
}

function newPage() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("");
}

/** Let other pages of this browser know that the uploads of this one go on. (Web Locks need HTTPS.) */
function answerForPage(page) {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ({ data }) => { if (data.asks) channel.postMessage({ page }); };
}

function alivePages(own) {
  return new Promise((resolve) => {
    const alive = new Set([own]);
    const channel = new BroadcastChannel(CHANNEL);
    channel.onmessage = ({ data }) => { if (data.page) alive.add(data.page); };
    channel.postMessage({ asks: true });
    setTimeout(() => { channel.close(); resolve(alive); }, ANSWER_TIME);
  });
}
