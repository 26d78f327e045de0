// What is used of quotas, the most first.

import { element } from "../dom.js";
import { get } from "./api.js";
import { meter } from "./chart.js";
import { bytes } from "./format.js";
import { rows } from "./table.js";
import { number, t } from "./texts.js";

const FIRST = 20;
const MOST = 100; // what one answer tells of; there may be millions

const MEASURES = { bytes: [() => t("Stored"), bytes], files: [() => t("Files"), number], bytes_per_day: [() => t("Today"), bytes] };

/** Return the section, hidden where nothing counts. */
export function quotasSection() {
  const place = element("section", { class: "stack tight", hidden: true }, element("h3", {}, t("Quotas")));
  const table = rows({
    label: t("Quotas"),
    columns: [
      { title: t("Quota"), kind: "head", cell: (row) => element("span", { dir: "auto" }, row.quota) },
      ...Object.keys(MEASURES).map((name) => ({ title: MEASURES[name][0](), cell: (row) => used(row, name) })),
    ],
    load: async (cursor) => {
      const answer = await get("quotas", { limit: cursor ? MOST : FIRST });
      place.hidden = answer.quotas.length === 0;
      const list = cursor ? answer.quotas.slice(FIRST) : answer.quotas;
      return { rows: list, next: answer.more && !cursor ? "more" : null };
    },
  });
  place.append(table);
  return place;
}

function used(row, name) {
  const measure = row[name];
  if (!measure) return "";
  const [label, format] = MEASURES[name];
  return measure.limit === null || measure.limit === undefined ? format(measure.used) : meter(measure.used, measure.limit, label(), { format });
}
