// Buttons that make links to a folder: for operators, who may.

/** Return the buttons for a folder. */
export function folderLinks() {
  return [];
}
