// A QR code as a drawing: dark on light in every theme, for a camera reads it.

const QUIET = 4; // modules of light around it (ISO/IEC 18004)

/** Return a QR code of its rows of 0 and 1, `label` being what those read who do not see it. */
export function qrCode(rows, label) {
  const size = rows.length + 2 * QUIET;
  const drawing = shape("svg", { class: "qr", viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label });
  const modules = rows.flatMap((row, y) => [...row].map((module, x) => module === "1" && `M${x + QUIET} ${y + QUIET}h1v1h-1z`));
  drawing.append(
    shape("rect", { width: size, height: size, fill: "white" }),
    shape("path", { d: modules.filter(Boolean).join(""), fill: "black", "shape-rendering": "crispEdges" }),
  );
  return drawing;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
