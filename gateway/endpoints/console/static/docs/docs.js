// The page /-/docs: fetches /-/openapi.json as its user, lists the operations, and shows one of them.

import { openBar } from "../console/shell.js";
import { announce, byId, element } from "../dom.js";
import { Model } from "./model.js";
import { operationView, pathPieces } from "./operation.js";

const SOURCE = new URL("openapi.json", location.href);
const BASE = new URL("..", SOURCE).href;
const SEARCH_DELAY = 80; // milliseconds: not noticed, and fast typing searches once

let token = ""; // in memory alone: pages of upstreams share this origin, and could read what is stored
let model = null;
let rows = new Map();

// -- what is served

async function load() {
  show("loading");
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(SOURCE, { headers, cache: "no-store" });
    if (response.status === 401 || response.status === 403) return refuse(response.status, await messageOf(response));
    if (!response.ok) return fail("The gateway cannot show its operations", await messageOf(response));
    model = new Model(await response.json());
  } catch (error) {
    if (error instanceof SyntaxError || (error instanceof TypeError && /not an OpenAPI/.test(error.message))) {
      return fail("This is no OpenAPI document", "What /-/openapi.json returned cannot be read. Is another server in between?");
    }
    return fail("The gateway does not answer", "It may be restarting, or the network is down.");
  }
  return present();
}

async function messageOf(response) {
  try {
    const message = String((await response.json()).message ?? "");
    return message.charAt(0).toUpperCase() + message.slice(1);
  } catch {
    return `It answered with the status ${response.status}.`;
  }
}

function show(state) {
  byId("loading").hidden = state !== "loading";
  byId("gate").hidden = state !== "gate";
  byId("failure").hidden = state !== "failure";
  byId("pages").hidden = state !== "pages";
  for (const id of ["use-token", "forget-token"]) byId(id).hidden = state !== "pages" || (id === "use-token") !== !token;
}

function refuse(status, message) {
  const title = status === 403 ? "This token may call nothing here" : "Who are you?";
  ask(title, token || status === 403 ? message : "", false);
}

function fail(title, text) {
  show("failure");
  byId("failure-title").textContent = title;
  byId("failure-text").textContent = text;
  byId("failure-title").focus();
}

/** Ask for a token; `mayClose`: there is something to go back to. */
function ask(title, message, mayClose) {
  show("gate");
  byId("gate-title").textContent = title;
  byId("gate-error").textContent = message;
  byId("gate-close").hidden = !mayClose;
  byId("token").value = "";
  byId("token").focus();
}

// -- the list

function present() {
  const { caller } = model;
  if (token && !caller) return ask("Who are you?", "The gateway does not know this token.", false);
  byId("title").textContent = model.title;
  byId("version").textContent = model.version;
  byId("caller").textContent = caller ? `${caller.name}` : "";
  rows = new Map();
  byId("groups").replaceChildren(...model.groups.map(groupView));
  byId("search").value = "";
  filter();
  const moved = document.activeElement === document.body; // what had the focus is hidden now
  show("pages");
  return route(!(token && moved));
}

function groupView([name, operations]) {
  return element("section", { class: "group" },
    element("h2", {}, name),
    element("ul", {}, operations.map((operation) => {
      const row = element("li", {}, element("a", { href: `#${encodeHash(operation.hash)}` },
        element("span", { class: "method" }, operation.method),
        element("span", { class: "path" }, pathPieces(operation.path)),
        operation.summary && operation.summary !== `${operation.method} ${operation.path}`
          && element("span", { class: "summary" }, operation.summary)));
      rows.set(operation.hash, row);
      return row;
    })));
}

function filter() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const operation of model.operations) {
    const matches = words.every((word) => operation.text.includes(word));
    rows.get(operation.hash).hidden = !matches;
    count += matches;
  }
  for (const group of byId("groups").children) group.hidden = !group.querySelector("li:not([hidden])");
  const all = model.operations.length;
  byId("count").textContent = words.length ? `${count} of ${all} operations` : `${all} operations`;
}

/** Move the focus through the list with the arrow keys. */
function step(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by || event.altKey || event.ctrlKey || event.metaKey) return;
  const links = [...byId("groups").querySelectorAll("li:not([hidden]) a")];
  const at = links.indexOf(document.activeElement);
  const next = at + by < 0 ? byId("search") : links[Math.min(at + by, links.length - 1)];
  if (next) {
    event.preventDefault();
    next.focus();
  }
}

// -- one operation

function encodeHash(text) {
  return encodeURIComponent(text).replaceAll("%2F", "/");
}

function decodeHash(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return hash.slice(1);
  }
}

/** Show what the fragment of the URL names. */
function route(first = false) {
  if (!model || byId("pages").hidden) return;
  const hash = decodeHash(location.hash);
  const operation = model.byHash.get(hash);
  const before = byId("groups").querySelector("[aria-current]");
  before?.removeAttribute("aria-current");
  document.body.dataset.view = hash ? "operation" : ownOperations().length ? "list" : "empty";
  document.title = operation ? `${operation.method} ${operation.path} · ${model.title}` : model.title;
  byId("operation").replaceChildren(operation ? operationView(model, operation, BASE) : hash ? unknown() : overview());
  if (operation) {
    const link = rows.get(hash).firstElementChild;
    link.setAttribute("aria-current", "page");
    link.scrollIntoView({ block: "nearest" });
  }
  byId("operation").scrollTop = 0;
  if (first) return;
  if (hash) byId("operation").querySelector("h2").focus({ preventScroll: true });
  else (before ?? byId("search")).focus({ preventScroll: true });
  if (hash) scrollTo(0, 0);
}

function unknown() {
  return element("article", {},
    element("p", { class: "back" }, element("a", { href: "#" }, "All operations")),
    element("h2", { tabindex: "-1" }, "No such operation"),
    element("p", {}, "It is not served any more, or you may not call it."));
}

function ownOperations() {
  return model.operations.filter((operation) => operation.group !== "Gateway");
}

function overview() {
  const ours = ownOperations();
  const { description } = model.source.info ?? {};
  return element("article", {},
    element("h2", { tabindex: "-1" }, ours.length ? "Overview" : "Nothing is served yet"),
    ours.length
      ? element("p", { class: "prose" }, typeof description === "string" ? `${description}.` : "")
      : element("p", {}, "No route is loaded that you may call. Routes are plugins: a folder of YAML files, named with ",
        element("code", { class: "flag" }, "--plugins"), "."),
    element("dl", { class: "facts" },
      element("dt", {}, "Address"), element("dd", {}, element("code", {}, BASE)),
      element("dt", {}, "Caller"), element("dd", {}, model.caller ? `${model.caller.name} (${model.caller.kind})` : "no token"),
      element("dt", {}, "Operations"), element("dd", {}, String(model.operations.length))),
    element("p", {}, element("button", { type: "button", class: "plain", onclick: download }, "Save openapi.json")));
}

function download() {
  const text = JSON.stringify(model.source, null, 2);
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("a", { href: url, download: "openapi.json" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
  announce("Saved");
}

// -- events

let waiting = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(filter, SEARCH_DELAY);
});
byId("operations").addEventListener("keydown", step);
byId("gate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  load();
});
byId("gate-close").addEventListener("click", () => { show("pages"); byId("use-token").focus(); });
byId("use-token").addEventListener("click", () => ask("Who are you?", "", true));
byId("forget-token").addEventListener("click", () => { token = ""; load(); });
byId("again").addEventListener("click", load);
byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("operation").focus(); });
addEventListener("hashchange", () => route());
openBar();
load();
