// Small things for drawing: elements made from plain values, sizes and dates in words.

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function megabytes(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  if (bytes < 1000 * 1000) return `${Math.round(bytes / 1000)} kB`;
  return `${Number((bytes / 1e6).toFixed(1))} MB`;
}

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const MINUTE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function day(iso) {
  return DAY.format(new Date(iso));
}

export function minute(iso) {
  return MINUTE.format(new Date(iso));
}
