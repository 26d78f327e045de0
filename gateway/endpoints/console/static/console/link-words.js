// What is said of links on more than one page.

import { element } from "../dom.js";
import { currentLanguage } from "./texts.js";

/** Return an element with the day and the hour of a moment (ISO text): how long ahead is too coarse for an end. */
export function dayAndHour(iso) {
  const text = new Date(iso).toLocaleString(currentLanguage(), { dateStyle: "medium", timeStyle: "short" });
  return element("time", { datetime: iso }, text);
}
