// Elements, made without markup: what comes from a document is text, and nothing else.

import { t } from "./console/texts.js";

/** Make an element: `element("a", { href: "#x", onclick: act }, "text", other)`. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(3).filter((child) => child || child === 0));
  return made;
}

/** Return the element with an id of the page. */
export function byId(id) {
  return document.getElementById(id);
}

/** Say something to those who do not see the page. */
export function announce(text) {
  byId("announcement").textContent = text;
}

/** Return a button that copies what `text` returns. */
export function copyButton(label, text) {
  const button = element("button", { type: "button", class: "plain small", onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = t("Copied");
      announce(t("Copied"));
    } catch {
      // Without HTTPS browsers have no clipboard for pages.
      button.textContent = t("Select and copy it");
      announce(t("The browser does not let this page copy"));
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }
  return button;
}

/** Return a `details` whose content is made when it is opened for the first time. */
export function lazyDetails(summary, content, open = false) {
  const details = element("details", {}, element("summary", {}, summary));
  let filled = false;
  const fill = () => {
    if (!filled) details.append(content());
    filled = true;
  };
  details.addEventListener("toggle", () => { if (details.open) fill(); });
  if (open) {
    fill();
    details.open = true;
  }
  return details;
}
