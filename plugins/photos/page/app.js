// Puts the page together: which event, who asks, what is dropped, what is said aloud.

import { Api } from "./api.js";
import { megabytes } from "./drawing.js";
import { Gallery } from "./gallery.js";
import { Guests } from "./guests.js";
import { Queue } from "./queue.js";
import { Uploads } from "./uploads.js";

const EVENT = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const at = (id) => document.getElementById(id);
const said = new URLSearchParams(location.search).get("event");
const isNamed = said !== null && EVENT.test(said);
const event = isNamed ? said : "demo";
const guest = new URLSearchParams(location.hash.slice(1)).get("guest") ?? "";
const api = new Api(event, guest);
const gallery = new Gallery(api, say);
const uploads = new Uploads(api, changed);
const queue = new Queue({
  cancel: (job) => uploads.cancel(job),
  retry: (job) => uploads.retry(job),
  retryAll: (jobs) => uploads.retryAll(jobs),
});

at("event").value = event;
at("event-name").textContent = event;
document.title = `${event} · Photos`;
if (said !== null && !isNamed) {
  at("event-error").textContent = `“${said}” cannot name an event: letters, digits, - and _, up to 64. This is the event “${event}”.`;
}
at("chooser").hidden = at("invite-open").hidden = guest !== "";
new Guests(api, askForToken);

function say(text) {
  at("voice").textContent = text;
}

// -- files, dropped or chosen

async function take(files) {
  let settings;
  try {
    settings = await api.settings();
  } catch (fault) {
    at("gallery-error").textContent = fault.message;
    return;
  }
  for (const file of files) {
    const type = typeOf(file);
    const refusal = faultOf(file, type, settings);
    if (refusal) uploads.refuse(file, refusal);
    else uploads.add(file, type, wordsFor(file));
  }
}

/** Browsers that cannot show HEIC know no type of it. */
function typeOf(file) {
  const suffix = /\.(heic|heif)$/i.exec(file.name);
  return file.type || (suffix ? `image/${suffix[1].toLowerCase()}` : "");
}

function faultOf(file, type, { types, maxBytes }) {
  if (/^image\/hei[cf]$/.test(type) && !types.includes(type)) {
    return "HEIC photos are not taken here. On an iPhone: Settings, Camera, Formats, Most Compatible; then photos are JPEG.";
  }
  if (!types.includes(type)) return `Only ${kinds(types)} photos are taken here.`;
  if (file.size > maxBytes) return `Too large: it has ${megabytes(file.size)}, and ${megabytes(maxBytes)} is the most.`;
  return file.size ? "" : "The file is empty.";
}

function kinds(types) {
  let names = types.map((type) => type.replace("image/", "").replace("webp", "WebP").replace(/^(jpeg|png|gif)$/, (name) => name.toUpperCase()).replace(/^hei[cf]$/, "HEIC"));
  names = names.filter((name, place) => names.indexOf(name) === place);
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function wordsFor(file) {
  const title = at("title").value.trim() || file.name.replace(/\.[^.]*$/, "");
  return { title: title.slice(0, 120), description: at("description").value.trim() };
}

const drop = at("drop");
let depth = 0;
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  drop.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  depth = Math.max(depth - 1, 0);
  if (!depth) drop.classList.remove("over");
});
addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  drop.classList.remove("over");
  take([...event.dataTransfer.files]);
});
at("files").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  take(files);
});
addEventListener("beforeunload", (event) => {
  if (queue.jobs.some((job) => ["waiting", "sending", "interrupted"].includes(job.state))) event.preventDefault();
});

// -- what becomes of them

function changed(job) {
  queue.draw(job);
  if (job.state === "ready") {
    gallery.add(job.photo);
    say(`${job.file.name} is ready.`);
  }
  if (job.state === "failed") {
    if (job.status === 401) askForToken();
    else say(`${job.file.name}: ${job.error}`);
  }
}

// -- who asks

const ENDED = "This link is not valid any more. Ask for a new one.";

function askForToken() {
  if (!at("gate").hidden) return;
  at("gate-error").textContent = api.hasToken ? "This token is not valid." : "";
  at("gate").hidden = false;
  at("token").focus();
}

at("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  api.token = at("token").value;
  at("token").value = "";
  at("gate").hidden = true;
  at("files").focus();
  if (!(await show())) return;
  for (const job of queue.jobs) if (job.state === "failed" && job.status === 401) uploads.retry(job);
});

at("chooser").addEventListener("submit", (event) => {
  event.preventDefault();
  if (at("event").value !== api.event) location.search = new URLSearchParams({ event: at("event").value });
});

async function show() {
  at("gallery-error").textContent = "";
  try {
    await gallery.load();
    return true;
  } catch (fault) {
    if (fault.status === 401) askForToken();
    else at("gallery-error").textContent = guest && fault.status === 403 ? ENDED : fault.message;
    return false;
  }
}

try {
  const { types, maxBytes } = await api.settings();
  at("files").accept = types.join(",");
  at("limits").textContent = `${kinds(types)}, up to ${megabytes(maxBytes)} each`;
} catch (fault) {
  at("gallery-error").textContent = fault.message;
}
await show();
