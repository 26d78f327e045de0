// What the page knows of an OpenAPI 3.1 document: operations in groups, and what references lead to.

const METHODS = ["get", "put", "post", "patch", "delete", "options", "head", "trace"];
const LAST_GROUPS = ["Files", "Gateway"];

/** The operations of a document. Throws where it is none. */
export class Model {
  constructor(source) {
    if (!isObject(source) || !isObject(source.paths)) throw new TypeError("not an OpenAPI document");
    this.source = source;
    this.title = String(source.info?.title ?? "API");
    this.version = String(source.info?.version ?? "");
    this.caller = isObject(source["x-gateway-caller"]) ? source["x-gateway-caller"] : null;
    this.operations = Object.entries(source.paths).flatMap(([path, item]) => this.#ofPath(path, item));
    this.byHash = new Map(this.operations.map((operation) => [operation.hash, operation]));
    this.groups = grouped(this.operations);
  }

  /** Return what a reference leads to, with the name of its last step; undefined: nowhere. */
  resolve(value) {
    const names = [];
    while (isObject(value) && typeof value.$ref === "string") {
      if (names.length > 20) return { name: names[0], value: undefined };
      names.push(lastStep(value.$ref));
      value = this.#at(value.$ref);
    }
    return { name: names[0], value };
  }

  /** Tell which ways to show who one is an operation accepts, one of them. */
  security(operation) {
    const schemes = this.source.components?.securitySchemes ?? {};
    return (operation.raw.security ?? this.source.security ?? []).map((requirement) =>
      Object.entries(requirement).map(([name, scopes]) => ({ name, scopes, scheme: schemes[name] ?? {} })));
  }

  #at(reference) {
    if (!reference.startsWith("#/")) return undefined;
    let value = this.source;
    for (const step of reference.slice(2).split("/").map(decodeStep)) {
      if (value === null || typeof value !== "object" || !Object.hasOwn(value, step)) return undefined;
      value = value[step];
    }
    return value;
  }

  #ofPath(path, item) {
    return METHODS.filter((method) => isObject(item?.[method])).flatMap((method) => {
      const first = item[method];
      const others = Array.isArray(first["x-gateway-alternatives"]) ? first["x-gateway-alternatives"] : [];
      return [first, ...others].map((raw, index) => this.#operation(path, item, method, raw, index));
    });
  }

  #operation(path, item, method, raw, index) {
    const operation = {
      path,
      raw,
      method: method.toUpperCase(),
      summary: String(raw.summary ?? ""),
      description: String(raw.description ?? ""),
      hash: `${method}${path}${index ? `~${index + 1}` : ""}`,
      group: String(raw.tags?.[0] ?? `/${path.split("/")[1] ?? ""}`),
      parameters: this.#parameters(item.parameters, raw.parameters),
      hosts: Array.isArray(raw["x-gateway-hosts"]) ? raw["x-gateway-hosts"].map(String) : [],
    };
    const searched = [operation.method, path, operation.summary, operation.description, operation.group];
    operation.text = [...searched, ...operation.hosts].join(" ").toLowerCase();
    return operation;
  }

  #parameters(shared, own) {
    const listed = [...(shared ?? []), ...(own ?? [])].map((parameter) => this.resolve(parameter).value);
    return [...new Map(listed.filter(isObject).map((one) => [`${one.in} ${one.name}`, one])).values()];
  }
}

export function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

function grouped(operations) {
  const groups = new Map();
  for (const operation of operations) {
    if (!groups.has(operation.group)) groups.set(operation.group, []);
    groups.get(operation.group).push(operation);
  }
  for (const listed of groups.values()) listed.sort(byPath);
  const place = (name) => LAST_GROUPS.indexOf(name);
  return [...groups].sort(([a], [b]) => place(a) - place(b) || (a < b ? -1 : 1));
}

function byPath(one, other) {
  const order = METHODS.indexOf(one.method.toLowerCase()) - METHODS.indexOf(other.method.toLowerCase());
  return one.path === other.path ? order : one.path < other.path ? -1 : 1;
}

function lastStep(reference) {
  return decodeStep(reference.slice(reference.lastIndexOf("/") + 1));
}

function decodeStep(step) {
  let text = step;
  try {
    text = decodeURIComponent(step);
  } catch {
    // A percent sign that encodes nothing stands for itself.
  }
  return text.replaceAll("~1", "/").replaceAll("~0", "~");
}
