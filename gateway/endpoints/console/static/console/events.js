// The page of events: the backlog, dead deliveries by error, and the list of deliveries.

import { element } from "../dom.js";
import { get } from "./api.js";
import { backlog } from "./events-backlog.js";
import { deadDeliveries } from "./events-errors.js";
import { deliveryList } from "./events-list.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Events"), async (main) => {
  let before = "";
  const changed = async () => {
    await Promise.all([overview.refresh(), dead.refresh()]);
  };
  const choose = (filters, event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.button > 0) return;
    event.preventDefault();
    list.show(filters);
  };
  const overview = backlog({ choose, onCounts: ({ depth, paused }) => {
    list.filters.offer([...new Set([...depth.map(({ handler }) => handler), ...paused])].sort());
    dead.follow(depth.filter(({ state }) => state === "dead").reduce((sum, { count }) => sum + count, 0));
    const now = JSON.stringify(depth);
    if (before && now !== before) list.follow();
    before = now;
  } });
  const dead = deadDeliveries({ choose, changed });
  const list = deliveryList({ counts: () => overview.counts, changed });
  main.append(
    element("h2", {}, t("Events")),
    element("p", { class: "muted" }, t("Each event is delivered to its handlers at least once. What fails is tried again, and is dead after the last attempt.")),
    overview, dead, list);
  await Promise.all([overview.refresh(), offerHandlers(list)]);
}, { role: "operator" });

/** Offer the handlers that are loaded, also those of which nothing waits. */
async function offerHandlers(list) {
  const { handlers } = await get("plugins").catch(() => ({ handlers: [] }));
  list.filters.offer([...new Set(handlers.filter(({ retry }) => retry).map(({ name }) => name))].sort());
}
