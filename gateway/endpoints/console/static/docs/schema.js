// Schemas for people: the type in a line, its limits, and the fields of objects, opened one by one.

import { element, lazyDetails } from "../dom.js";
import { isObject } from "./model.js";

const MAX_FIELDS = 100;
const OPEN_DEPTH = 2;
const CHOICES = { oneOf: "One of these", anyOf: "Any of these", allOf: "All of these" };

/** Return the type of a schema in a few words, such as "array of Pet". */
export function typeText(model, schema, depth = 0) {
  const { name, value } = model.resolve(schema);
  if (depth > 5) return "…";
  if (value === undefined) return name ? `${name} (not in this document)` : "anything";
  if (value === false) return "nothing";
  if (!isObject(value)) return "anything";
  const many = value.items !== undefined && !name ? `array of ${typeText(model, value.items, depth + 1)}` : "";
  const types = [value.type ?? implied(value)].flat().map((type) => (type === "array" && many) || type);
  if (value.nullable) types.push("null");
  const text = types.filter(Boolean).join(" or ") || "anything";
  const format = typeof value.format === "string" ? ` (${value.format})` : "";
  return name ? `${name}${text === "object" ? "" : `, ${text}`}` : text + format;
}

function implied(schema) {
  if (schema.properties || schema.additionalProperties) return "object";
  if (schema.items) return "array";
  const values = "const" in schema ? [schema.const] : Array.isArray(schema.enum) ? schema.enum : [];
  if (values.length) return [...new Set(values.map((value) => (value === null ? "null" : typeof value)))].join(" or ");
  return schema.oneOf || schema.anyOf ? "one of several" : undefined;
}

/** Return the limits of a value as short texts. */
export function limitTexts(model, schema) {
  const value = model.resolve(schema).value;
  if (!isObject(value)) return [];
  const texts = [
    range(value.minimum, value.maximum, "from", "to", ""),
    range(value.exclusiveMinimum, value.exclusiveMaximum, "above", "below", ""),
    range(value.minLength, value.maxLength, "at least", "at most", "character"),
    range(value.minItems, value.maxItems, "at least", "at most", "item"),
    range(value.minProperties, value.maxProperties, "at least", "at most", "field"),
  ];
  if (value.multipleOf !== undefined) texts.push(`a multiple of ${shown(value.multipleOf)}`);
  if (value.uniqueItems === true) texts.push("no item twice");
  if (value.pattern !== undefined) texts.push(`matches ${String(value.pattern)}`);
  if ("const" in value) texts.push(`always ${shown(value.const)}`);
  if (Array.isArray(value.enum)) texts.push(choiceText(value.enum));
  if (value.default !== undefined) texts.push(`default ${shown(value.default)}`);
  for (const flag of ["readOnly", "writeOnly", "deprecated"]) {
    if (value[flag] === true) texts.push({ readOnly: "read only", writeOnly: "write only" }[flag] ?? flag);
  }
  return texts.filter(Boolean);
}

function choiceText(values) {
  if (values.length === 1) return `always ${shown(values[0])}`;
  return `one of ${values.slice(0, 50).map(shown).join(", ")}${values.length > 50 ? " and others" : ""}`;
}

function range(least, most, from, to, noun) {
  if (least === undefined && most === undefined) return "";
  const unit = noun && ((most ?? least) === 1 ? ` ${noun}` : ` ${noun}s`);
  if (most === undefined) return `${from} ${shown(least)}${unit}`;
  return `${least === undefined ? "" : `${from} ${shown(least)}, `}${to} ${shown(most)}${unit}`;
}

export function shown(value) {
  const text = typeof value === "string" ? `"${value}"` : JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

/** Return the view of a whole schema. */
export function schemaView(model, schema) {
  const type = typeText(model, schema);
  const bounds = limits(model, schema);
  return element("div", { class: "schema" },
    (type !== "object" || bounds.length > 0) && element("p", { class: "type" }, type, bounds),
    prose(model.resolve(schema).value?.description),
    parts(model, schema, 0, []));
}

/** Return a description as a paragraph; what stands between backticks is code. */
export function prose(text) {
  if (typeof text !== "string" || !text) return "";
  return element("p", { class: "prose" }, text.split(/`([^`]+)`/).map((piece, index) =>
    (index % 2 ? element("code", {}, piece) : piece)));
}

function limits(model, schema) {
  return limitTexts(model, schema).map((text) => element("span", { class: "limit" }, text));
}

/** Return what a schema consists of: fields, items, choices. `open` are the schemas around it. */
function parts(model, schema, depth, open) {
  const value = model.resolve(schema).value;
  if (!isObject(value)) return [];
  const around = [...open, value];
  const made = [];
  if (isObject(value.properties)) made.push(fields(model, value, depth, around));
  if (isObject(value.additionalProperties)) {
    made.push(nested(model, value.additionalProperties, "Other fields", depth, around));
  } else if (value.additionalProperties === false && isObject(value.properties)) {
    made.push(element("p", { class: "muted" }, "No other fields"));
  }
  if (value.items !== undefined && hasParts(model, value.items)) {
    made.push(nested(model, value.items, "Each item", depth, around));
  }
  for (const [keyword, label] of Object.entries(CHOICES)) {
    if (!Array.isArray(value[keyword])) continue;
    made.push(element("p", { class: "muted" }, label));
    made.push(element("ul", { class: "fields" }, value[keyword].map((choice) =>
      element("li", {}, line(model, "", choice, false), children(model, choice, depth, around)))));
  }
  return made;
}

function hasParts(model, schema) {
  const value = model.resolve(schema).value;
  return isObject(value) && (isObject(value.properties) || isObject(value.additionalProperties)
    || (value.items !== undefined && hasParts(model, value.items))
    || Object.keys(CHOICES).some((keyword) => Array.isArray(value[keyword])));
}

function fields(model, value, depth, around) {
  const required = new Set(Array.isArray(value.required) ? value.required : []);
  const entries = Object.entries(value.properties);
  const item = ([name, schema]) =>
    element("li", {}, line(model, name, schema, required.has(name)), children(model, schema, depth, around));
  const list = element("ul", { class: "fields" }, entries.slice(0, MAX_FIELDS).map(item));
  if (entries.length > MAX_FIELDS) {
    const rest = element("li", {}, element("button", {
      type: "button",
      class: "plain small",
      onclick: () => rest.replaceWith(...entries.slice(MAX_FIELDS).map(item)),
    }, `Show all ${entries.length} fields`));
    list.append(rest);
  }
  return list;
}

function line(model, name, schema, required) {
  return element("div", { class: "field" },
    name && element("code", { class: "name" }, name),
    element("span", { class: "type" }, typeText(model, schema)),
    required && element("span", { class: "required" }, "required"),
    limits(model, schema),
    prose(model.resolve(schema).value?.description));
}

function children(model, schema, depth, around) {
  if (!hasParts(model, schema)) return "";
  const { items } = model.resolve(schema).value;
  return items === undefined
    ? nested(model, schema, "Its fields", depth, around)
    : nested(model, items, "Each item", depth, around);
}

function nested(model, schema, label, depth, around) {
  // What stands around itself opens on demand only: it has no end.
  const again = around.includes(model.resolve(schema).value);
  return lazyDetails(label, () => element("div", {}, parts(model, schema, depth + 1, around)),
    depth + 1 < OPEN_DEPTH && !again);
}
