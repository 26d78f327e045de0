// The filters of the list: they stand in the address of the page, so that a view can be bookmarked.

import { element } from "../dom.js";
import { listAddress, readable, STATES, stateName } from "./events-model.js";
import { t } from "./texts.js";

const HOURS = { "1h": 1, "24h": 24, "7d": 168 };

/** Return the form. `form.values()` are its filters, `form.query()` those for the API; `onChange` follows a change. */
export function filterForm(onChange) {
  const state = select("state", t("State"), [["", t("All states")], ...STATES.map((name) => [name, stateName(name)])]);
  const handler = select("handler", t("Handler"), [["", t("All handlers")]]);
  const since = select("since", t("Since"), [["", t("Any time")], ["1h", t("The last hour")], ["24h", t("The last 24 hours")], ["7d", t("The last 7 days")]]);
  const chip = element("p", { class: "chip", hidden: true });
  const form = element("form", { class: "toolbar filters", role: "search", "aria-label": t("Filters"), onsubmit: (event) => event.preventDefault() },
    state.place, handler.place, since.place, chip);
  let error;

  form.values = () => ({ state: state.input.value, handler: handler.input.value, since: since.input.value, error });
  form.query = () => {
    const values = form.values();
    const hours = HOURS[values.since];
    return {
      state: values.state || undefined,
      handler: values.handler || undefined,
      since: hours ? Math.floor(Date.now() / 1000 - hours * 3600) : values.since || undefined,
      error: values.error,
    };
  };
  /** Add handlers to choose from. */
  form.offer = (names) => names.forEach((name) => handler.offer(name));
  /** Use these filters, and put them into the address. */
  form.set = (values) => {
    show(values);
    remember();
    onChange();
  };

  function show(values) {
    state.show(STATES.includes(values.state) ? values.state : "");
    handler.show(values.handler ?? "");
    since.show(values.since ?? "");
    error = values.error ?? undefined;
    chip.hidden = error === undefined;
    chip.replaceChildren(t("Error:"), " ", element("code", {}, element("bdi", {}, readable(error ?? "") || t("No error is noted"))), " ",
      element("button", { type: "button", class: "quiet small", onclick: () => {
        form.set({ ...form.values(), error: undefined });
        state.input.focus();
      } }, t("Any error")));
  }

  function remember() {
    const url = listAddress(form.values());
    if (url.href !== location.href) history.pushState(null, "", url);
  }

  function fromAddress() {
    const query = new URLSearchParams(location.search);
    show(Object.fromEntries(["state", "handler", "since", "error"].map((name) => [name, query.get(name) ?? undefined])));
  }

  for (const { input } of [state, handler, since]) {
    input.addEventListener("change", () => {
      remember();
      onChange();
    });
  }
  addEventListener("popstate", () => {
    fromAddress();
    onChange();
  });
  fromAddress();
  return form;
}

function select(name, label, options) {
  const input = element("select", { name, "aria-label": label }, options.map(([value, text]) => element("option", { value }, text)));
  const there = new Set(options.map(([value]) => value));
  const field = {
    input,
    place: input,
    offer(value) {
      if (there.has(value)) return;
      there.add(value);
      input.append(element("option", { value }, value));
    },
    show(value) {
      field.offer(value);
      input.value = value;
    },
  };
  return field;
}
