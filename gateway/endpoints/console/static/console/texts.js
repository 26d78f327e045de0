// Texts in the language of the person. The English text is the key: languages/<code>.json has the others.

import { API } from "./api.js";

export const LANGUAGES = { en: "English", ko: "한국어", ja: "日本語" };

let texts = {};
let language = "en";

/** Load the language that the person chose here, else the first one of the browser that is there. */
export async function loadTexts() {
  const wanted = [chosenLanguage(), ...navigator.languages].filter(Boolean).map((tag) => tag.toLowerCase().split("-")[0]);
  for (const code of wanted) {
    if (code === "en") break;
    const answer = await fetch(new URL(`pages/languages/${code}.json`, API)).catch(() => null);
    if (answer?.ok) {
      texts = await answer.json();
      language = code;
      break;
    }
  }
  document.documentElement.lang = language;
}

/** Return a text: `t("Stored {name}", { name })`. */
export function t(text, values = {}) {
  return fill(texts[text] ?? text, values);
}

/** Return a text that counts: `tn("{count} file", "{count} files", 3)`. A language has one form or both. */
export function tn(one, many, count, values = {}) {
  const known = texts[many];
  const forms = Array.isArray(known) ? known : [known ?? one, known ?? many];
  const form = new Intl.PluralRules(language).select(count) === "one" ? forms[0] : forms.at(-1);
  return fill(form, { count: number(count), ...values });
}

/** Return a number as the language writes it. */
export function number(value, options) {
  return new Intl.NumberFormat(language, options).format(value);
}

/** The language of the page, for `Intl`. */
export function currentLanguage() {
  return language;
}

/** Return the language that the person chose here, null where it is the browser's. */
export function chosenLanguage() {
  return localStorage.getItem("language");
}

/** Use this language from now on; null: the browser's. */
export function chooseLanguage(code) {
  if (code === null) localStorage.removeItem("language");
  else localStorage.setItem("language", code);
  location.reload();
}

function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
