// Texts in the language of the person. The English text is the key: languages/<code>.json has the others.

/** The languages that the gateway has: the name of each in itself, by its code. */
export const LANGUAGES = Object.fromEntries(Object.entries(JSON.parse(document.body.dataset.languages)).map(
  ([code, name]) => [code, name ?? new Intl.DisplayNames([code], { type: "language" }).of(code)]));

const FORMS = ["zero", "one", "two", "few", "many", "other"]; // the order of CLDR
const FROM_RIGHT = new Set(["ar", "fa", "he", "ur"]);

const TURNS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066\u2067]/g;

let texts = {};
let language = "en";
let rules = new Intl.PluralRules("en");

/** Load the language that the person chose here, else the first one of the browser that is there. */
export async function loadTexts() {
  const code = [chosenLanguage(), ...navigator.languages].map(available).find(Boolean) ?? "en";
  if (code === language) return;
  const answer = await fetch(new URL(`../languages/${code}.json`, import.meta.url)).catch(() => null);
  if (!answer?.ok) return;
  texts = await answer.json();
  language = code;
  rules = new Intl.PluralRules(language);
}

/** Say in the document which language it has. */
export function markLanguage(place = document.documentElement) {
  place.lang = language;
  if (FROM_RIGHT.has(language.split("-")[0])) place.dir = "rtl";
}

/** Return a text: `t("Stored {name}", { name })`. */
export function t(text, values = {}) {
  const translated = translation(text);
  return fill(typeof translated === "string" ? translated : text, values);
}

/** Return a text that counts: `tn("{count} file", "{count} files", 3)`. A language has a text or one for each form. */
export function tn(one, many, count, values = {}) {
  const forms = [translation(many) ?? [one, many]].flat();
  const order = FORMS.filter((form) => rules.resolvedOptions().pluralCategories.includes(form));
  const form = forms[Math.min(order.indexOf(rules.select(count)), forms.length - 1)];
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

function available(tag) {
  const code = tag?.toLowerCase() ?? "";
  return [code, code.split("-")[0]].find((part) => Object.hasOwn(LANGUAGES, part));
}

function translation(text) {
  return Object.hasOwn(texts, text) ? texts[text] : undefined;
}

// A value may come from a client: what would turn the text around it is made visible.
function fill(text, values) {
  const value = (name) => String(values[name]).replace(TURNS, "\ufffd");
  return text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? value(name) : whole));
}
