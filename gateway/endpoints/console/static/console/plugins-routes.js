// Routes, page by page with a search, and the upstreams of all of them.

import { element } from "../dom.js";
import { API, get } from "./api.js";
import { bytes, duration, moment } from "./format.js";
import { rows } from "./table.js";
import { number, t, tn } from "./texts.js";

const PAGE = 50;
const WAIT = 250; // milliseconds after the last letter of a search

const FEATURES = {
  request_script: () => t("Script on requests"),
  response_script: () => t("Script on responses"),
  request_schema: () => t("Checks requests"),
  response_schema: () => t("Checks responses"),
  cors: () => t("CORS"),
  health: () => t("Probes"),
  websocket: () => t("WebSocket"),
  request_headers: () => t("Changes request headers"),
  response_headers: () => t("Changes response headers"),
  upstream_tls: () => t("TLS of its own"),
  raw_path: () => t("Raw path"),
};
const AUTHORIZATIONS = {
  default: () => t("As the gateway"),
  none: () => t("Open to all"),
  token: () => t("Token"),
  jwt: () => t("JSON Web Token"),
};

/** Return the section of upstreams; null where there are none. Those that are down stand first. */
export function upstreamSection({ upstreams, processes, silent_processes: silent }) {
  if (upstreams.length === 0) return null;
  return element("section", { class: "stack tight", "aria-labelledby": "upstreams" },
    element("h3", { id: "upstreams" }, t("Upstreams")),
    silent.length > 0 && element("p", { class: "hint" }, t("Process {numbers} does not answer: what it knows of upstreams is missing.", { numbers: silent.join(", ") })),
    element("ul", { class: "upstreams" }, upstreams.map((upstream) => element("li", { class: "card" },
      element("p", { class: "row" }, element("code", {}, upstream.upstream), state(upstream, processes)),
      element("p", { class: "muted" }, upstream.route_count === 1
        ? t("Route {name}", { name: upstream.route }) : tn("{count} route", "{count} routes", upstream.route_count),
      upstream.since && [" · ", t("down since"), " ", moment(upstream.since)])))));
}

function state({ down }, processes) {
  if (down === 0) return element("span", { class: "tag good" }, t("Up"));
  if (down >= processes) return element("span", { class: "tag bad" }, t("Down"));
  return element("span", { class: "tag warn" }, t("Down in {down} of {all} processes", { down: number(down), all: number(processes) }));
}

/** Return the section of routes. `follow(plugins)` hides it where there are none, `reload()` reads them anew. */
export function routeSection() {
  const search = element("input", { type: "search", "aria-label": t("Search routes"), placeholder: t("Path, name, host, upstream …"), oninput: later });
  const count = element("p", { class: "muted", role: "status" });
  let timer = 0;
  let processes = 1;
  let table = null;
  const place = element("section", { class: "stack tight", "aria-labelledby": "routes", hidden: true },
    element("div", { class: "toolbar" }, element("h3", { id: "routes" }, t("Routes")), search), count);

  function later() {
    clearTimeout(timer);
    timer = setTimeout(() => table?.reload(), WAIT);
  }

  async function load(cursor) {
    const answer = await get("plugins/routes", { search: search.value.trim() || undefined, limit: PAGE, after: cursor });
    processes = answer.processes;
    count.textContent = search.value.trim()
      ? tn("{count} route matches", "{count} routes match", answer.count) : tn("{count} route", "{count} routes", answer.count);
    return { rows: answer.routes, next: answer.next ?? undefined };
  }

  place.follow = ({ route_count: routes }) => {
    place.hidden = routes === 0;
    if (routes === 0 || table) return;
    table = rows({
      label: t("Routes"), load,
      columns: [
        { title: t("Path"), kind: "head", cell: pathCell },
        { title: t("Upstreams"), cell: (route) => upstreamCell(route, processes) },
        { title: t("Authorization"), cell: authorizationCell },
        { title: t("Limits"), cell: limitCell },
      ],
      empty: element("div", { class: "empty" }, element("strong", {}, t("No route matches")), element("p", {}, t("All words of the search stand in one route."))),
    });
    place.append(table);
  };
  place.reload = () => table?.reload();
  return place;
}

function pathCell(route) {
  const usage = route.operations.map((operation) => operation.usage).filter(Boolean);
  const conditions = [...route.hosts, ...route.when.map((name) => t("if {name}", { name }))];
  return element("div", { class: "what" },
    element("span", { class: "row" },
      element("span", { class: "method" }, route.methods.join(" ") || t("Any method")),
      element("a", { class: "path", href: docsAddress(route) }, route.path)),
    conditions.length > 0 && element("p", { class: "muted" }, conditions.join(" · ")),
    usage.length > 0 && element("p", { class: "muted" }, usage.slice(0, 3).join(" · ")),
    element("p", { class: "muted" }, element("bdi", {}, route.name), " · ", element("code", { class: "place" }, route.place)),
    route.features.length > 0 && element("p", { class: "row tags" }, route.features.map((name) => element("span", { class: "tag" }, FEATURES[name]?.() ?? name))));
}

function upstreamCell(route, processes) {
  if (route.redirect) return t("Redirect {status}", { status: route.redirect });
  if (route.upstreams.length === 0) return t("A script answers");
  const more = route.upstream_count - route.upstreams.length;
  return element("ul", {},
    route.upstreams.map((upstream) => element("li", { class: "row" }, element("code", {}, upstream.upstream),
      upstream.down > 0 && state(upstream, processes),
      route.upstreams.length > 1 && element("span", { class: "muted" }, t("weight {number}", { number: number(upstream.weight) })))),
    more > 0 && element("li", { class: "muted" }, tn("and {count} more", "and {count} more", more)));
}

function authorizationCell({ authorization }) {
  const { kind, scopes, groups, allow, deny } = authorization;
  const more = [
    scopes.length && t("scopes {names}", { names: scopes.join(", ") }),
    groups.length && t("one of {names}", { names: groups.join(", ") }),
    allow.length && t("from {networks}", { networks: allow.join(", ") }),
    deny.length && t("not from {networks}", { networks: deny.join(", ") }),
  ].filter(Boolean);
  return element("div", {}, AUTHORIZATIONS[kind]?.() ?? kind, more.length > 0 && element("p", { class: "muted" }, more.join(" · ")));
}

function limitCell({ limits }) {
  const { rate } = limits;
  const texts = [
    rate && (rate.by === "address"
      ? t("{count} in {time} for each address", { count: number(rate.requests), time: duration(rate.seconds) })
      : t("{count} in {time} for each principal", { count: number(rate.requests), time: duration(rate.seconds) })),
    limits.in_flight !== null && tn("{count} at a time", "{count} at a time", limits.in_flight),
    limits.body !== null && t("bodies up to {size}", { size: bytes(limits.body) }),
    limits.total !== null && t("{time} in all", { time: duration(limits.total) }),
  ].filter(Boolean);
  return texts.length > 0 ? element("ul", { class: "muted" }, texts.map((text) => element("li", {}, text))) : null;
}

function docsAddress(route) {
  const url = new URL("docs", API);
  if (route.methods.length > 0) url.hash = encodeURIComponent(`${route.methods[0].toLowerCase()}${route.path}`).replaceAll("%2F", "/");
  return url;
}
