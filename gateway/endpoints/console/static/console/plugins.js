// The page of plugins: what is loaded, how the latest reload ended, upstreams and routes.

import { announce, byId, element } from "../dom.js";
import { API, get, onReturn, post } from "./api.js";
import { readable } from "./events-model.js";
import { moment } from "./format.js";
import { handlerSections } from "./plugins-handlers.js";
import { routeSection, upstreamSection } from "./plugins-routes.js";
import { openPage } from "./shell.js";
import { t, tn } from "./texts.js";

const INTERVAL = 10000; // milliseconds

openPage(() => t("Plugins"), async (main) => {
  const stale = element("p", { class: "failure", role: "status" });
  const outcome = element("div", { id: "reload-outcome" });
  const sections = element("div", { class: "stack" });
  const note = element("p", { class: "muted" });
  const button = element("button", { type: "button", onclick: reload }, t("Reload"));
  const routes = routeSection();
  let shown = "";
  let loaded = "";
  let timer = 0;

  async function refresh() {
    clearTimeout(timer);
    try {
      const [plugins, paused] = await Promise.all([get("plugins"), get("events/paused").catch(() => ({ paused: [] }))]);
      stale.replaceChildren();
      show(plugins, paused.paused);
    } catch (error) {
      if (!shown) throw error;
      stale.textContent = t("Not up to date: {reason}", { reason: t(error.message) });
    }
    timer = setTimeout(() => (document.hidden ? onShown() : refresh()), INTERVAL);
  }

  function onShown() {
    document.addEventListener("visibilitychange", refresh, { once: true });
  }

  function show(plugins, paused) {
    note.replaceChildren(summary(plugins));
    showReload(plugins.reload);
    routes.follow(plugins);
    const state = JSON.stringify([plugins.set, plugins.upstreams.map(({ upstream, down }) => [upstream, down])]);
    if (loaded && loaded !== state) routes.reload();
    loaded = state;
    const text = JSON.stringify([plugins.handlers, plugins.configs, plugins.upstreams, plugins.silent_processes, paused]);
    if (text === shown || sections.contains(document.activeElement)) return;
    shown = text;
    sections.replaceChildren(...[
      plugins.handlers.length === 0 && plugins.route_count === 0 && nothing(plugins),
      ...handlerSections(plugins, new Set(paused)),
      upstreamSection(plugins),
      plugins.configs.length > 0 && element("section", { class: "stack tight" }, element("h3", {}, t("Configs")),
        element("p", { class: "muted" }, t("Values that scripts read; only their names are shown.")),
        element("p", { class: "row" }, plugins.configs.map((name) => element("code", { class: "tag" }, name)))),
    ].filter(Boolean));
  }

  function showReload(latest) {
    if (latest === null) return outcome.replaceChildren();
    const { faults, fault_count: count } = latest;
    if (count === 0) return outcome.replaceChildren(element("p", { class: "muted" }, t("Last reload:"), " ", moment(latest.time)));
    const more = count - faults.length;
    const before = outcome.dataset.shown;
    outcome.dataset.shown = JSON.stringify(latest);
    if (before === outcome.dataset.shown && outcome.firstElementChild) return;
    outcome.replaceChildren(element("section", { class: "failure", role: "alert" },
      element("h3", { tabindex: "-1", id: "reload-failed" }, t("The reload has failed: nothing has changed")),
      element("p", { class: "muted" }, moment(latest.time), " · ", t("What was loaded before goes on.")),
      element("ul", { class: "faults" }, faults.map((fault) => element("li", {}, element("code", {}, element("bdi", {}, readable(fault)))))),
      more > 0 && element("p", {}, tn("and {count} more", "and {count} more", more))));
  }

  async function reload() {
    button.disabled = true;
    button.textContent = t("Reloading …");
    try {
      const { faults, processes } = await post("reload", {});
      delete outcome.dataset.shown;
      await refresh();
      if (faults.length) byId("reload-failed")?.focus();
      else announce(tn("Reloaded in {count} process", "Reloaded in {count} processes", processes));
    } catch (error) {
      outcome.replaceChildren(element("p", { class: "failure", role: "alert" }, t(error.message)));
    }
    button.disabled = false;
    button.textContent = t("Reload");
    if (document.activeElement === document.body) button.focus();
  }

  main.append(
    element("div", { class: "toolbar" }, element("h2", {}, t("Plugins")), element("a", { class: "button plain", href: new URL("docs", API) }, t("API document")), button),
    note, stale, outcome, sections, routes);
  onReturn(refresh);
  await refresh();
}, { role: "operator" });

function summary({ set, files, folders, processes }) {
  const where = folders.length ? t("from {folders}", { folders: folders.join(", ") }) : t("no folder is set: --plugins");
  return [
    t("Set {number}", { number: set }), tn("{count} file", "{count} files", files), where, tn("{count} process", "{count} processes", processes),
  ].join(" · ");
}

function nothing({ folders }) {
  return element("div", { class: "empty" }, element("strong", {}, t("No plugin is loaded")),
    element("p", {}, folders.length
      ? t("Put a YAML file into {folder}, then reload: a handler of an event, a schedule, or a route.", { folder: folders[0] })
      : t("Start the gateway with --plugins FOLDER: its YAML files describe handlers of events, schedules and routes.")));
}
