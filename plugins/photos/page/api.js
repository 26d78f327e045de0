// The gateway as this page sees it: who asks, what is answered, and where bytes go.

export class ApiError extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export class Api {
  // The token lives here and nowhere else: no cookie, no storage, no URL.
  #token = "";
  #settings = null;

  constructor(event) {
    this.event = event;
  }

  set token(text) {
    this.#token = text.trim();
  }

  get hasToken() {
    return this.#token !== "";
  }

  async settings() {
    this.#settings ??= await this.#ask("settings.json");
    return this.#settings;
  }

  /** Begins an upload; answers photoId, s3PutObjectUrl, headers. */
  async initiate(facts, signal) {
    const request = { method: "POST", body: JSON.stringify(facts), signal };
    const begun = await this.#ask(`${this.#photos()}/initiate-upload`, request);
    return { ...begun, s3PutObjectUrl: this.reachable(begun.s3PutObjectUrl) };
  }

  async list(params) {
    const found = await this.#ask(`${this.#photos()}?${new URLSearchParams(params)}`);
    return { ...found, photos: found.photos.map((photo) => this.#shown(photo)) };
  }

  async one(id) {
    return this.#shown(await this.#ask(`${this.#photos()}/${id}`));
  }

  async remove(id) {
    await this.#ask(`${this.#photos()}/${id}`, { method: "DELETE" });
  }

  /** A signed URL of the gateway, on the host name by which this page was opened. */
  reachable(url) {
    const parts = new URL(url);
    const own = parts.pathname.startsWith(this.#settings?.signedPath ?? "/-/objects/");
    return own ? `${location.origin}${parts.pathname}${parts.search}` : url;
  }

  #photos() {
    return `../events/${encodeURIComponent(this.event)}/photos`;
  }

  #shown(photo) {
    const urls = ["url", "thumbnailUrl", "originalUrl"].filter((name) => photo[name]);
    return { ...photo, ...Object.fromEntries(urls.map((name) => [name, this.reachable(photo[name])])) };
  }

  async #ask(path, request = {}) {
    const headers = request.body ? { "Content-Type": "application/json" } : {};
    if (this.hasToken) headers.Authorization = `Bearer ${this.#token}`;
    let answer;
    try {
      answer = await fetch(path, { ...request, headers, credentials: "omit" });
    } catch (fault) {
      if (fault.name === "AbortError") throw fault;
      throw new ApiError(0, "The gateway does not answer.");
    }
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    throw new ApiError(answer.status, await told(answer), Number(answer.headers.get("Retry-After")) || 0);
  }
}

async function told(answer) {
  try {
    const { message, faults } = await answer.json();
    return [message, ...(faults ?? []).map((one) => `${one.pointer} ${one.message}`)].join("; ");
  } catch {
    return `The answer was ${answer.status}.`;
  }
}
