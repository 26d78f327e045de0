// The address of what the page shows: `?path=/upload/a/&search=text&file=b.txt`.

/** Return the place in an address: its folder, what is searched for, and the file that is shown. */
export function placeOf(location, home) {
  const fields = new URLSearchParams(location.search);
  const path = fields.get("path") || home;
  const end = path.lastIndexOf("/") + 1;
  return { path: path.slice(0, end) || home, search: fields.get("search") ?? "", file: fields.get("file") || path.slice(end) };
}

/** Return the address of a place, relative to the page. */
export function urlOf({ path, search, file }) {
  const fields = new URLSearchParams({ path });
  if (search) fields.set("search", search);
  if (file) fields.set("file", file);
  // A slash is not escaped: an address is for people, too (RFC 3986 section 3.4 allows it).
  return `?${fields.toString().replaceAll("%2F", "/")}`;
}

/** Tell whether two places show the same list. */
export function sameList(one, other) {
  return one.path === other.path && one.search === other.search;
}
