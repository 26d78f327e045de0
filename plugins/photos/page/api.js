// The gateway as this page sees it: who asks, what is answered, and where bytes go.

/** A request that failed; status 0: there was no answer. */
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

  /** `guest` is the secret of a guest's link, empty for everyone else. */
  constructor(event, guest = "") {
    this.event = event;
    this.guest = guest;
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

  /** Makes a link for guests that is good for so many hours: url, id, expires. */
  async invite(hours) {
    const made = await this.#ask(this.#links(), { method: "POST", body: JSON.stringify({ hours }) });
    return { ...made, url: new URL(`./?event=${this.event}#guest=${made.secret}`, location.href).href };
  }

  async invitations() {
    return (await this.#ask(this.#links())).links;
  }

  async revoke(id) {
    await this.#ask(`${this.#links()}/${id}`, { method: "DELETE" });
  }

  /** Whether a URL leads to the gateway, and not to a bucket. */
  isOwn(url) {
    return new URL(url).pathname.startsWith(this.#settings?.signedPath ?? "/-/objects/");
  }

  /** A signed URL of the gateway, on the host name by which this page was opened. */
  reachable(url) {
    const parts = new URL(url);
    return this.isOwn(url) ? `${location.origin}${parts.pathname}${parts.search}` : url;
  }

  #photos() {
    const event = `events/${encodeURIComponent(this.event)}`;
    return this.guest ? `../guest/${event}/photos` : `../${event}/photos`;
  }

  #links() {
    return `../events/${encodeURIComponent(this.event)}/guest-links`;
  }

  #shown(photo) {
    const urls = ["url", "thumbnailUrl", "originalUrl"].filter((name) => photo[name]);
    return { ...photo, ...Object.fromEntries(urls.map((name) => [name, this.reachable(photo[name])])) };
  }

  async #ask(path, request = {}) {
    const headers = request.body ? { "Content-Type": "application/json" } : {};
    if (this.guest) headers["X-Guest-Link"] = this.guest;
    else if (this.hasToken) headers.Authorization = `Bearer ${this.#token}`;
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
