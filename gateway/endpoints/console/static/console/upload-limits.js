// What may be uploaded: told before, and checked before a byte is sent. The gateway checks it again.

import { bytes } from "./format.js";
import { number, t } from "./texts.js";

/** Return why a file is not sent at all, "" where it may be. `uploads` is that of the session. */
export function refusalOf(file, { max_bytes: most, types = [], suffixes = [] }) {
  if (most !== null && most !== undefined && file.size > most) {
    const [size, limit] = [bytes(file.size), bytes(most)];
    if (size !== limit) return t("It has {size}, and {most} is the most.", { size, most: limit });
    return t("It has {size} bytes, and {most} is the most.", { size: number(file.size), most: number(most) });
  }
  const name = file.name.toLowerCase();
  if (suffixes.length && !suffixes.some((suffix) => name.endsWith(suffix) && name !== suffix)) {
    return t("Only names that end in {suffixes} are taken here.", { suffixes: suffixes.join(", ") });
  }
  // Without a type the gateway goes by the name.
  const type = file.type.split(";")[0].trim().toLowerCase();
  if (types.length && type && !types.includes(type) && !types.includes(`${type.split("/")[0]}/*`)) {
    return t("Files of the type {type} are not taken here.", { type });
  }
  return "";
}

/** Return what to tell before: a sentence for each limit. */
export function limitsOf({ max_bytes: most, types = [], suffixes = [] }) {
  return [
    most !== null && most !== undefined && t("Up to {size} each.", { size: bytes(most) }),
    types.length > 0 && t("Types: {types}.", { types: types.join(", ") }),
    suffixes.length > 0 && t("Names that end in {suffixes}.", { suffixes: suffixes.join(", ") }),
  ].filter(Boolean);
}

/** Return the `accept` of a file input, "" for all. A suffix is exact; types alone are too. */
export function acceptOf({ types = [], suffixes = [] }) {
  return (suffixes.length ? suffixes.filter((suffix) => suffix.startsWith(".")) : types).join(",");
}
