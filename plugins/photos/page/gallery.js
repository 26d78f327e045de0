// The photos of the event: a wall of thumbnails, newest first, and one of them large.

import { day, element, megabytes, minute } from "./drawing.js";

export class Gallery {
  #api;
  #photos = [];
  #cursor = null;
  #shown = -1;
  #say;
  #at = Object.fromEntries(
    ["gallery", "empty", "more", "gallery-error", "viewer", "viewer-image", "viewer-title", "viewer-text",
      "viewer-facts", "original", "remove", "previous", "next", "close"].map((id) => [id, document.getElementById(id)]),
  );

  constructor(api, say) {
    this.#api = api;
    this.#say = say;
    this.#at.more.addEventListener("click", () => this.#older());
    this.#at.close.addEventListener("click", () => this.#at.viewer.close());
    this.#at.previous.addEventListener("click", () => this.#show(this.#shown - 1));
    this.#at.next.addEventListener("click", () => this.#show(this.#shown + 1));
    this.#at.remove.addEventListener("click", () => this.#remove());
    this.#at.viewer.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#show(this.#shown - 1);
      if (event.key === "ArrowRight") this.#show(this.#shown + 1);
    });
    this.#at.viewer.addEventListener("click", (event) => {
      if (event.target === this.#at.viewer) this.#at.viewer.close();
    });
    this.#at.viewer.addEventListener("close", () => this.#itemOf(this.#photos[this.#shown])?.querySelector("button").focus());
  }

  /** Loads the newest photos. Throws what the gateway refuses. */
  async load() {
    const { photos, cursor } = await this.#api.list({ limit: 50 });
    this.#photos = [];
    this.#at.gallery.replaceChildren();
    this.#append(photos, cursor);
  }

  /** Puts a photo that has just become ready at the front. */
  add(photo) {
    if (this.#photos.some((one) => one.id === photo.id)) return;
    this.#photos.unshift(photo);
    const item = this.#item(photo);
    item.classList.add("fresh");
    this.#at.gallery.prepend(item);
    this.#at.empty.hidden = true;
  }

  #append(photos, cursor) {
    const known = new Set(this.#photos.map((photo) => photo.id));
    const more = photos.filter((photo) => !known.has(photo.id));
    this.#photos.push(...more);
    this.#at.gallery.append(...more.map((photo) => this.#item(photo)));
    this.#cursor = cursor;
    this.#at.more.hidden = cursor === null;
    this.#at.empty.hidden = this.#photos.length > 0;
  }

  async #older() {
    try {
      const { photos, cursor } = await this.#api.list({ limit: 50, cursor: this.#cursor });
      this.#append(photos, cursor);
      this.#fault("");
    } catch (fault) {
      this.#fault(fault.message);
    }
  }

  #item(photo) {
    const image = element("img", { src: photo.thumbnailUrl, alt: photo.description || photo.title || "Photo", loading: "lazy", decoding: "async" });
    const frame = element("button", { type: "button", className: "frame" }, image);
    frame.setAttribute("aria-label", `Open ${photo.title || "photo"}`);
    frame.addEventListener("click", () => this.#open(photo));
    const item = element("li", {}, frame, element("h3", { textContent: photo.title || "Untitled" }), element("p", { textContent: photo.description || day(photo.created) }));
    item.dataset.id = photo.id;
    item.style.setProperty("--ratio", Math.min(Math.max(photo.width / photo.height, 0.6), 2.2).toFixed(3));
    return item;
  }

  #itemOf(photo) {
    return photo && this.#at.gallery.querySelector(`[data-id="${photo.id}"]`);
  }

  #open(photo) {
    this.#at.viewer.showModal();
    this.#show(this.#photos.indexOf(photo));
  }

  async #show(index) {
    if (index < 0 || index >= this.#photos.length) return;
    this.#shown = index;
    this.#unsure();
    const photo = this.#photos[index];
    this.#draw(photo, photo.thumbnailUrl);
    try {
      // Anew: the URLs of the list may have run out.
      const fresh = await this.#api.one(photo.id);
      if (this.#photos[this.#shown]?.id !== photo.id) return;
      this.#photos[this.#shown] = fresh;
      this.#draw(fresh, fresh.url);
    } catch (fault) {
      this.#at["viewer-facts"].textContent = fault.message;
    }
  }

  #draw(photo, source) {
    const { viewer, remove, original } = this.#at;
    Object.assign(this.#at["viewer-image"], { src: source, alt: photo.description || photo.title || "Photo" });
    this.#at["viewer-title"].textContent = photo.title || "Untitled";
    this.#at["viewer-text"].textContent = photo.description;
    this.#at["viewer-facts"].textContent = `${minute(photo.created)} · ${photo.width} × ${photo.height} · ${megabytes(photo.bytes)}`;
    this.#at.previous.hidden = this.#shown === 0;
    this.#at.next.hidden = this.#shown === this.#photos.length - 1;
    original.hidden = !photo.originalUrl;
    original.href = photo.originalUrl ?? "";
    remove.hidden = !photo.removable;
    if (!viewer.contains(document.activeElement) || document.activeElement.hidden) this.#at.close.focus();
  }

  /** Another photo: who was asked about the last one has not been asked about this one. */
  #unsure() {
    this.#at.remove.textContent = "Remove";
    delete this.#at.remove.dataset.sure;
  }

  async #remove() {
    const { remove, viewer } = this.#at;
    if (!remove.dataset.sure) {
      remove.dataset.sure = "asked";
      remove.textContent = "Really remove?";
      return;
    }
    const photo = this.#photos[this.#shown];
    try {
      await this.#api.remove(photo.id);
    } catch (fault) {
      if (fault.status !== 404) {
        this.#at["viewer-facts"].textContent = fault.message;
        return;
      }
    }
    this.#itemOf(photo)?.remove();
    this.#photos.splice(this.#shown, 1);
    this.#shown = -1;
    viewer.close();
    this.#at.empty.hidden = this.#photos.length > 0;
    this.#at.gallery.focus();
    this.#say(`${photo.title || "The photo"} is removed.`);
  }

  #fault(text) {
    this.#at["gallery-error"].textContent = text;
  }
}
