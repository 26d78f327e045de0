// The curl command of an operation, with sample values that its schemas accept. No token is ever in it.

import { isObject } from "./model.js";

const BEARERS = new Set(["bearer", "jwt"]);
const MAX_DEPTH = 6;
const FORMATS = {
  "date": "2026-01-31",
  "date-time": "2026-01-31T12:00:00Z",
  "time": "12:00:00Z",
  "duration": "PT1H",
  "email": "ann@example.com",
  "hostname": "example.com",
  "ipv4": "192.0.2.1",
  "ipv6": "2001:db8::1",
  "uri": "https://example.com/",
  "uuid": "6f1ed002-ab2c-4cb6-9c8a-5c5f2d5f4c11",
};
const CANDIDATES = ["abc", "a", "A", "ABC", "1", "12", "123", "1234", "a1", "A1", "a-b", "2026-01-31", "a@b.c", ""];

/** Return the command, or nothing for what no command calls. `base` is the URL of the gateway. */
export function curlCommand(model, operation, base) {
  const { raw } = operation;
  if (raw["x-gateway-internal"]) return "";
  const words = [];
  const [input, ...body] = bodyWords(model, operation);
  if (needsMethod(operation.method, body)) words.push(`-X ${operation.method}`);
  if (operation.hosts.length && !operation.hosts.includes(new URL(base).hostname)) {
    words.push(`-H ${quoted(`Host: ${operation.hosts[0].replace("*", "www")}`)}`);
  }
  const security = model.security(operation);
  const signed = security.length > 0 && security.every((ways) => ways.some((way) => way.name === "signed"));
  if (signed && operation.method === "POST") return ""; // a signed form: its fields are made by a script
  if (security.some((ways) => ways.some((way) => BEARERS.has(way.name)))) {
    words.push('-H "Authorization: Bearer $TOKEN"');
  }
  for (const parameter of operation.parameters) {
    if (parameter.in === "header" && parameter.required) {
      words.push(`-H ${quoted(`${parameter.name}: ${sampleOf(model, parameter)}`)}`);
    }
  }
  const path = filledPath(model, operation);
  const url = signed
    ? `"$(gateway sign ${operation.method} ${quoted(decodeURIComponent(path))})"`
    : quoted(base.replace(/\/$/, "") + path + query(model, operation));
  const [first, rest] = words[0]?.startsWith("-X") ? [`${words[0]} ${url}`, words.slice(1)] : [url, words];
  return input + [`curl ${first}`, ...rest, ...body].join(" \\\n  ");
}

function needsMethod(method, body) {
  const sends = body.some((word) => word.startsWith("-d") || word.startsWith("-F"));
  const puts = body.some((word) => word.startsWith("-T"));
  return method !== (puts ? "PUT" : sends ? "POST" : "GET");
}

/** Return what precedes curl, and the words for its body. */
function bodyWords(model, operation) {
  const body = model.resolve(operation.raw.requestBody).value;
  const [type, media] = Object.entries(isObject(body?.content) ? body.content : {})[0] ?? [];
  if (type === undefined) return [""];
  if (type.includes("json")) {
    const json = JSON.stringify(sample(model, media?.schema, "body"));
    return ["", `-H 'Content-Type: ${type}'`, `-d ${quoted(json)}`];
  }
  if (type === "multipart/form-data") return ["echo hello | ", "-F 'file=@-;filename=hello.txt'"];
  if (operation.method === "PUT" && body.required) return ["echo hello | ", "-T -"];
  return ["", "-H 'Content-Type: text/plain'", "-d hello"];
}

function filledPath(model, operation) {
  const values = new Map(operation.parameters.filter((one) => one.in === "path").map((one) => [one.name, one]));
  return operation.path.split("/").map((segment) => {
    const name = /^\{(.*)\}$/.exec(segment)?.[1];
    if (name === undefined) return encodeSegment(segment);
    if (name === "filepath" || name === "filename") return "hello.txt";
    return encodeSegment(String(sampleOf(model, values.get(name) ?? { name }))) || "a";
  }).join("/");
}

function query(model, operation) {
  const fields = operation.parameters.filter((one) => one.in === "query" && one.required).flatMap((one) =>
    queryValues(one, sampleOf(model, one)).map((value) =>
      `${encodeURIComponent(one.name)}=${encodeURIComponent(value)}`));
  return fields.length ? `?${fields.join("&")}` : "";
}

function queryValues(parameter, value) {
  const between = { form: ",", pipeDelimited: "|", spaceDelimited: " " }[parameter.style ?? "form"];
  return Array.isArray(value) && parameter.explode === false ? [value.join(between)] : [value].flat();
}

function sampleOf(model, parameter) {
  const value = parameter.example ?? sample(model, parameter.schema, parameter.name);
  return value === null || value === undefined ? parameter.name : value;
}

/** Return a value that a schema accepts, as far as one can tell without a validator. */
export function sample(model, schema, name, depth = 0) {
  const value = merged(model, model.resolve(schema).value);
  if (!isObject(value) || depth > MAX_DEPTH) return isObject(value) ? null : name;
  for (const given of [value.example, value.examples?.[0], value.default, value.const, value.enum?.[0]]) {
    if (given !== undefined) return given;
  }
  const choice = value.oneOf?.[0] ?? value.anyOf?.[0];
  if (choice !== undefined && value.type === undefined) return sample(model, choice, name, depth + 1);
  const [type] = [value.type ?? (value.properties ? "object" : value.items ? "array" : "string")].flat();
  if (type === "object") return sampleObject(model, value, depth);
  if (type === "array") {
    const count = Math.min(Math.max(value.minItems ?? 1, value.maxItems === 0 ? 0 : 1), 10);
    return Array.from({ length: count }, () => sample(model, value.items, name, depth + 1));
  }
  if (type === "integer" || type === "number") return sampleNumber(value, type);
  if (type === "boolean") return true;
  return type === "null" ? null : sampleText(value, name);
}

function merged(model, value) {
  if (!isObject(value) || !Array.isArray(value.allOf)) return value;
  const all = [value, ...value.allOf.map((part) => model.resolve(part).value).filter(isObject)];
  return {
    ...Object.assign({}, ...all),
    allOf: undefined,
    properties: Object.assign({}, ...all.map((part) => part.properties)),
    required: all.flatMap((part) => part.required ?? []),
  };
}

function sampleObject(model, value, depth) {
  const properties = isObject(value.properties) ? value.properties : {};
  const required = Array.isArray(value.required) ? value.required : [];
  const names = required.length ? required : Object.keys(properties).slice(0, 3);
  const wanted = required.length || depth === 0 ? names : [];
  return Object.fromEntries([...new Set(wanted)].map((name) =>
    [name, sample(model, properties[name], name, depth + 1)]));
}

function sampleNumber(value, type) {
  const step = type === "integer" ? 1 : 0.5;
  const least = value.minimum ?? (value.exclusiveMinimum !== undefined ? value.exclusiveMinimum + step : undefined);
  const most = value.maximum ?? (value.exclusiveMaximum !== undefined ? value.exclusiveMaximum - step : undefined);
  const number = least ?? Math.min(most ?? 1, 1);
  const unit = value.multipleOf;
  const exact = type === "integer" ? Math.ceil(number) : number;
  return unit > 0 ? Math.ceil(exact / unit) * unit : exact;
}

function sampleText(value, name) {
  if (value.format in FORMATS && value.pattern === undefined) return FORMATS[value.format];
  const fits = (text) => text.length >= (value.minLength ?? 0) && text.length <= (value.maxLength ?? Infinity);
  const padded = [name, ...CANDIDATES].map((text) => text.padEnd(Math.min(value.minLength ?? 0, 64), "a"));
  const candidates = [...padded, padded[0].slice(0, value.maxLength ?? undefined)].filter(fits);
  if (value.pattern === undefined) return candidates[0] ?? name;
  try {
    const pattern = new RegExp(value.pattern, "u");
    return candidates.find((text) => text.length <= 16 && pattern.test(text)) ?? candidates[0] ?? name;
  } catch {
    return candidates[0] ?? name;
  }
}

/** Encode a segment of a path; what may stand there as it is stays readable (RFC 3986, pchar). */
function encodeSegment(text) {
  return encodeURIComponent(text).replace(/%(?:3A|40|2B|24|2C|3D|26)/g, decodeURIComponent);
}

function quoted(text) {
  if (/^[\w:/.%@,=+-]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}
