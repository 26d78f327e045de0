// One operation: what it takes, what it answers, who may call it, and the command that calls it.

import { copyButton, element, lazyDetails } from "../dom.js";
import { curlCommand } from "./curl.js";
import { isObject } from "./model.js";
import { limitTexts, prose, schemaView, shown, typeText } from "./schema.js";

const ERROR = "#/components/schemas/Error";
const PLACES = [["path", "Path"], ["query", "Query"], ["header", "Headers"], ["cookie", "Cookies"]];

/** Return the view of an operation. `base` is the URL of the gateway. */
export function operationView(model, operation, base) {
  return element("article", {},
    element("p", { class: "back" }, element("a", { href: "#" }, "All operations")),
    element("h2", { id: "headline", tabindex: "-1" }, operation.summary || `${operation.method} ${operation.path}`),
    element("p", { class: "address" },
      element("span", { class: "method" }, operation.method), " ",
      element("code", { class: "path" }, pathPieces(operation.path)),
      copyButton("Copy link", () => location.href)),
    prose(operation.description),
    factsView(model, operation, base),
    curlView(model, operation, base),
    parametersView(model, operation),
    bodyView(model, operation),
    responsesView(model, operation));
}

/** Return a path as text, its variables marked. */
export function pathPieces(path) {
  return path.split(/(\{[^}]*\})/).filter(Boolean).map((piece) =>
    piece.startsWith("{") ? element("span", { class: "variable" }, piece) : piece);
}

function section(title, ...content) {
  return element("section", {}, element("h3", {}, title), ...content);
}

function factsView(model, operation, base) {
  const { raw } = operation;
  const facts = [["Authorization", authorization(model, operation)]];
  if (operation.hosts.length) facts.push(["Hosts", operation.hosts.join(", ")]);
  const conditions = conditionTexts(raw["x-gateway-when"]);
  if (conditions.length) facts.push(["Only with", conditions]);
  const bounds = boundTexts(raw["x-gateway-limits"]);
  if (bounds.length) facts.push(["Limits", bounds]);
  if (raw["x-gateway-websocket"]) {
    facts.push(["WebSocket", base.replace(/^http/, "ws").replace(/\/$/, "") + operation.path]);
  }
  const rows = facts.map(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, [value].flat().map((text) => element("p", {}, text))),
  ]);
  return element("dl", { class: "facts" }, rows);
}

/** Say what an operation requires of its callers, in a line for each alternative. */
export function authorization(model, operation) {
  if (operation.raw["x-gateway-internal"]) return ["Not for clients: gateways call it among themselves"];
  const ways = model.security(operation);
  if (!ways.length) return ["None is needed"];
  const groups = operation.raw["x-gateway-groups"];
  const more = Array.isArray(groups) && groups.length ? `, in one of the groups ${groups.join(", ")}` : "";
  return ways.map((way) => way.length ? way.map(schemeText).join(" and ") + more : "None, for what is open to all");
}

function schemeText({ name, scopes, scheme }) {
  const where = scheme.type === "apiKey" ? `${scheme.name} (${scheme.in})` : `Authorization: ${capital(scheme.scheme ?? name)}`;
  const what = scheme.description ?? name;
  const rights = Array.isArray(scopes) && scopes.length ? ` with the scopes ${scopes.join(", ")}` : "";
  return `${what}${rights}, in ${where}`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function conditionTexts(when) {
  if (!isObject(when)) return [];
  return Object.entries({ headers: "header", query: "query field" }).flatMap(([key, label]) =>
    Object.entries(isObject(when[key]) ? when[key] : {}).map(([name, wanted]) => {
      if (wanted === true) return `${label} ${name}`;
      return wanted === false ? `no ${label} ${name}` : `${label} ${name}: ${[wanted].flat().join(" or ")}`;
    }));
}

function boundTexts(bounds) {
  if (!isObject(bounds)) return [];
  const texts = [];
  if (isObject(bounds.requests)) {
    const { count, seconds, by } = bounds.requests;
    texts.push(`${count} requests in ${seconds} seconds for each ${by}`);
  }
  if (bounds.in_flight !== undefined) texts.push(`${bounds.in_flight} requests at the same time, of all callers`);
  if (bounds.body_bytes !== undefined) texts.push(`${Number(bounds.body_bytes).toLocaleString("en")} bytes of body`);
  if (bounds.seconds !== undefined) texts.push(`${bounds.seconds} seconds in all`);
  return texts;
}

function curlView(model, operation, base) {
  const command = curlCommand(model, operation, base);
  if (!command) return "";
  const needsToken = command.includes("$TOKEN");
  return section("Try it",
    element("div", { class: "command" },
      element("pre", { tabindex: "0", "aria-label": "Command" }, element("code", { id: "curl" }, command)),
      copyButton("Copy", () => command)),
    needsToken && element("p", { class: "muted" }, "TOKEN is a variable of your shell: ",
      element("code", {}, "read -rs TOKEN"), " keeps it out of the history."));
}

function parametersView(model, operation) {
  const tables = PLACES.map(([place, title]) => {
    const listed = operation.parameters.filter((parameter) => parameter.in === place);
    return listed.length ? element("div", {},
      element("h4", {}, title),
      element("ul", { class: "fields" }, listed.map((parameter) => parameterView(model, parameter)))) : "";
  }).filter(Boolean);
  return tables.length ? section("Parameters", tables) : "";
}

function parameterView(model, parameter) {
  const { schema } = parameter;
  const resolved = model.resolve(schema).value;
  const hasFields = isObject(resolved) && (resolved.properties || resolved.oneOf || resolved.anyOf);
  return element("li", {},
    element("div", { class: "field" },
      element("code", { class: "name" }, String(parameter.name)),
      element("span", { class: "type" }, typeText(model, schema)),
      parameter.required && element("span", { class: "required" }, "required"),
      limitTexts(model, schema).map((text) => element("span", { class: "limit" }, text)),
      prose(parameter.description ?? resolved?.description)),
    hasFields ? lazyDetails("Its fields", () => schemaView(model, schema)) : "");
}

function bodyView(model, operation) {
  const body = model.resolve(operation.raw.requestBody).value;
  if (!isObject(body)) return "";
  return section("Request body",
    prose(body.description),
    contentView(model, body.content, body.required ? "required" : "optional"));
}

function contentView(model, content, note) {
  return Object.entries(isObject(content) ? content : {}).map(([type, media]) => element("div", { class: "content" },
    element("p", {}, element("code", {}, type === "*/*" ? "any media type" : type),
      note && element("span", { class: note === "required" ? "required" : "limit" }, note)),
    isObject(media?.schema) && Object.keys(media.schema).length ? schemaView(model, media.schema) : "",
    media?.example === undefined ? "" : element("pre", { tabindex: "0" }, shown(media.example))));
}

function responsesView(model, operation) {
  const entries = Object.entries(isObject(operation.raw.responses) ? operation.raw.responses : {});
  if (!entries.length) return "";
  const refused = entries.some(([, response]) => isRefusal(model.resolve(response).value));
  return section("Responses",
    element("ul", { class: "responses" }, entries.map(([code, response]) => responseView(model, code, response))),
    refused && lazyDetails("The body of refusals", () => schemaView(model, { $ref: ERROR })));
}

function responseView(model, code, response) {
  const value = model.resolve(response).value ?? {};
  const headers = Object.entries(isObject(value.headers) ? value.headers : {});
  const types = Object.keys(isObject(value.content) ? value.content : {});
  return element("li", {},
    element("div", { class: "field" },
      element("code", { class: "code" }, code === "default" ? "other" : code),
      prose(String(value.description ?? ""))),
    headers.length > 0 && element("p", { class: "muted headers" }, "Headers: ",
      headers.map(([name, header], index) => [index ? ", " : "", element("code", {}, name),
        header?.description ? ` ${header.description}` : ""])),
    types.length > 0 && !isRefusal(value) && lazyDetails(types.join(", "), () =>
      element("div", {}, contentView(model, value.content)), /^[12]/.test(code)));
}

/** Tell whether a response is a refusal of the gateway: their body is described once. */
function isRefusal(response) {
  return response?.content?.["application/json"]?.schema?.$ref === ERROR;
}
