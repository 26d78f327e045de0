// The page `upload`: files and folders, sent until they are stored, and what becomes of them.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t, tn } from "./texts.js";
import { rejectionOf } from "./upload-after.js";
import { LeftBanner, SignInBanner, tellOfConnection } from "./upload-banners.js";
import { Chooser } from "./upload-chooser.js";
import { refusalOf } from "./upload-limits.js";
import { UploadList } from "./upload-list.js";
import { Place, urlOf } from "./upload-place.js";
import { Transfers } from "./upload-queue.js";
import { UnfinishedUploads } from "./upload-store.js";
import { Summary } from "./upload-summary.js";
import { Watch } from "./upload-watch.js";

/** Milliseconds between two drawings: often enough for the eye. */
const REDRAW = 200;
/** Uploads of one page at a time. */
const MAX_UPLOADS = 100_000;

openPage(() => t("Upload"), (main, session) => new UploadPage(main, session).open());

class UploadPage {
  #session;
  #store;
  #place;
  #transfers;
  #watch = new Watch((job, status) => this.#told(job, status));
  #parts;
  #page;
  #drawnAt = 0;
  #timer = 0;

  constructor(main, session) {
    this.#session = session;
    this.#store = new UnfinishedUploads(ownerOf(session));
    this.#place = new Place(session.uploads, new URLSearchParams(location.search).get("folder") ?? "");
    this.#transfers = new Transfers({
      urlOf,
      refusalOf: (file) => refusalOf(file, session.uploads),
      onChange: (job) => this.#changed(job),
      store: this.#store,
      resumable: session.uploads.resumable,
    });
    const chooser = new Chooser(this.#place, session.uploads, (batches) => this.#take(batches));
    const onAct = () => this.#draw();
    this.#parts = {
      signIn: new SignInBanner(this.#transfers, session),
      left: new LeftBanner(this.#transfers, {
        choose: (folder) => chooser.choose(folder), take: (entries) => this.#take([entries]), onAct,
      }),
      chooser,
      summary: new Summary(this.#transfers, onAct, () => chooser.add),
      list: new UploadList(this.#transfers, { downloads: session.features.downloads, fallback: () => chooser.add }),
    };
    // Busy until it shows what earlier visits left.
    this.#page = element("div", { class: "upload-page", "aria-busy": "true" }, Object.values(this.#parts).map((part) => part.element));
    main.append(this.#page);
  }

  async open() {
    tellOfConnection(this.#transfers);
    addEventListener("beforeunload", (event) => { if (this.#transfers.busy) event.preventDefault(); });
    setInterval(() => { if (this.#transfers.busy) this.#draw(); }, 1000); // speeds and waits change by themselves
    this.#draw();
    const restored = this.#transfers.restore(await this.#store.take());
    this.#draw();
    this.#page.removeAttribute("aria-busy");
    await restored;
  }

  async #take(batches) {
    const unreadable = [];
    for await (const batch of batches) {
      const entries = [];
      for (const item of batch) {
        if (item.fault) unreadable.push(item.relative);
        else entries.push({ ...item, path: this.#place.pathOf(item.relative) });
      }
      const room = MAX_UPLOADS - this.#transfers.jobs.size;
      this.#transfers.add(entries.slice(0, room));
      if (entries.length > room) {
        return this.#parts.chooser.fault(t("The list is full: add the rest when these are stored."));
      }
    }
    if (unreadable.length) {
      const some = unreadable.slice(0, 3).join(", ");
      this.#parts.chooser.fault(tn(
        "{count} file or folder cannot be read: {names}", "{count} files or folders cannot be read: {names}",
        unreadable.length, { names: some },
      ));
    }
  }

  #changed(job) {
    if (job?.state === "stored" && job.uploadId !== undefined && !job.isNoted) {
      job.isNoted = true;
      this.#parts.list.noteStored(job);
      this.#watch.follow(job);
    }
    this.#soon();
  }

  #told(job, status) {
    job.aftermath = status;
    const rejection = rejectionOf(status);
    if (rejection) this.#transfers.reject(job, rejection);
    this.#parts.list.told(job);
  }

  #soon() {
    if (this.#timer) return;
    this.#timer = setTimeout(() => this.#draw(), Math.max(0, this.#drawnAt + REDRAW - performance.now()));
  }

  #draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#drawnAt = performance.now();
    const { signIn, left, chooser, summary, list } = this.#parts;
    for (const banner of [signIn, left]) banner.draw(this.#transfers);
    chooser.draw(this.#transfers.jobs.size > 0);
    list.draw();
    summary.draw();
  }
}

/** Whose unfinished uploads these are. */
function ownerOf({ principal }) {
  return principal ? `${principal.kind} ${principal.name}` : "";
}
