// What an operator should look at, read from the facts of /-/status.

import { bytes, duration } from "./format.js";
import { t, tn } from "./texts.js";

/** Return `[{ text, level, path, query, link }]` of the facts, the worst first. */
export function attention(status) {
  const needs = [...full(status), ...dead(status), ...plugins(status), ...processes(status), ...small(status)];
  return [...needs.filter(({ level }) => level === "bad"), ...needs.filter(({ level }) => level === "warn")];
}

function full({ disk }) {
  if (!disk || disk.accepts_uploads) return [];
  return [{ level: "bad", path: "status", link: t("System"), text: t("The disk is full: {size} are free, and uploads are refused.", { size: bytes(disk.free) }) }];
}

function dead({ deliveries }) {
  const byHandler = new Map();
  for (const row of deliveries ?? []) {
    if (row.state === "dead") byHandler.set(row.handler, (byHandler.get(row.handler) ?? 0) + row.count);
  }
  return [...byHandler].map(([handler, count]) => ({
    level: "bad", path: "events", query: { state: "dead", handler }, link: t("Dead letters"),
    text: tn("{handler} gave up on {count} delivery.", "{handler} gave up on {count} deliveries.", count, { handler }),
  }));
}

function plugins({ plugins: loaded, upstreams_down: down }) {
  const faults = loaded?.faults ?? [];
  return [
    ...(faults.length === 0 ? [] : [{
      level: "bad", path: "plugins", link: t("Plugins"),
      text: t("The last reload changed nothing: {fault}", { fault: faults[0] }),
    }]),
    ...(down ?? []).map(({ upstream, route_count: count }) => ({
      level: "bad", path: "plugins", link: t("Plugins"),
      text: tn("{upstream} gets no requests of {count} route: it does not answer.", "{upstream} gets no requests of {count} routes: it does not answer.", count, { upstream }),
    })),
  ];
}

function processes({ silent_processes: silent, unknown }) {
  if (silent?.length) return [{ level: "bad", path: "status", link: t("System"), text: t("Process {names} does not answer.", { names: silent.join(", ") }) }];
  return Object.entries(unknown ?? {}).map(([name, reason]) => ({
    level: "bad", path: "status", link: t("System"), text: t("{name} cannot be read: {reason}", { name, reason }),
  }));
}

function small({ uploads, paused, quotas, keys }) {
  return [
    ...(uploads?.held ? [{
      level: "warn", path: "uploads", link: t("Activity"),
      text: tn("{count} upload is held and waits for a decision.", "{count} uploads are held and wait for a decision.", uploads.held),
    }] : []),
    ...(uploads?.failed ? [{
      level: "warn", path: "uploads", link: t("Activity"),
      text: tn("{count} upload failed in the last hour.", "{count} uploads failed in the last hour.", uploads.failed),
    }] : []),
    ...(paused ?? []).map((handler) => ({ level: "warn", path: "events", link: t("Events"), text: t("{handler} is paused.", { handler }) })),
    ...(quotas ?? []).map(({ rule, used, limit, what }) => ({
      level: "warn", path: "status", link: t("System"),
      text: t("{rule} has used {part} % of its quota of {what}.", { rule, what, part: Math.floor((100 * used) / limit) }),
    })),
    ...(keys ?? []).map(({ name, expires }) => ({
      level: "warn", path: "status", link: t("System"),
      text: t("The key {name} expires in {time}.", { name, time: duration((new Date(expires) - Date.now()) / 1000) }),
    })),
  ];
}
