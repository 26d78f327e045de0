// A button that shows and hides something.

import { element } from "../dom.js";

let count = 0;

/** Return a button that opens a panel with `content`. Escape, a press elsewhere and a move of the focus close it. */
export function disclosure(label, content, { name } = {}) {
  const id = `panel-${count += 1}`;
  const panel = element("div", { class: "panel", id, hidden: true }, content);
  const button = element("button", {
    type: "button", class: "quiet", "aria-expanded": "false", "aria-controls": id, "aria-label": name, onclick: toggle,
  }, element("span", {}, label));
  const place = element("div", { class: "disclosure", onkeydown: leave, onfocusout: moved }, button, panel);
  function show(open) {
    panel.hidden = !open;
    button.setAttribute("aria-expanded", String(open));
    if (open) addEventListener("pointerdown", outside);
    else removeEventListener("pointerdown", outside);
  }
  function toggle() {
    show(panel.hidden);
  }
  function leave(event) {
    if (event.key !== "Escape" || panel.hidden) return;
    event.stopPropagation();
    show(false);
    button.focus();
  }
  function moved(event) {
    if (event.relatedTarget && !place.contains(event.relatedTarget)) show(false);
  }
  function outside(event) {
    if (!place.contains(event.target)) show(false);
  }
  return place;
}
