// SPDX-License-Identifier: BSL-1.0
// Making elements. Text goes in as text nodes and attributes only: nothing from the result is ever
// parsed as markup.

function fill_in(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on")
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "colour") node.style.setProperty("--own", value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat())
    if (child !== null && child !== undefined && child !== false) node.append(child);
  return node;
}

function el(tag, attributes, ...children) {
  return fill_in(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill_in(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * A table from a header row and rows of cells; a cell is text or a node. The first column names the
 * row.
 */
function table(caption, head, rows, attributes = {}) {
  const header = el(
    "tr",
    {},
    head.map((text, i) => el("th", { scope: "col", class: i > 0 ? "number" : null }, text)),
  );
  const body = rows.map((cells) =>
    el(
      "tr",
      {},
      cells.map((cell, i) =>
        i === 0 ? el("th", { scope: "row" }, cell) : el("td", { class: "number" }, cell),
      ),
    ),
  );
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    el(
      "table",
      attributes,
      el("caption", { class: "unseen" }, caption),
      el("thead", {}, header),
      el("tbody", {}, body),
    ),
  );
}

// How an arm looks: colour, dash and marker, so that it can be told apart without colours. Known
// arms keep their look everywhere; others get the next free one when they first appear.
const known_looks = new Map([
  ["stock", { colour: "var(--stock)", dash: "7 4", marker: "circle", width: 2 }],
  ["pulse", { colour: "var(--pulse)", dash: null, marker: "square", width: 2.75 }],
  ["tokio", { colour: "var(--arm3)", dash: "2 3", marker: "diamond", width: 2 }],
  ["go", { colour: "var(--arm4)", dash: "9 3 2 3", marker: "triangle", width: 2 }],
  ["erlang", { colour: "var(--arm5)", dash: "4 2", marker: "cross", width: 2 }],
]);
const spare_looks = [
  { colour: "var(--arm6)", dash: "12 3", marker: "down", width: 2 },
  { colour: "var(--arm4)", dash: "1 2", marker: "plus", width: 2 },
  { colour: "var(--arm3)", dash: "6 2 1 2 1 2", marker: "bar", width: 2 },
  { colour: "var(--arm5)", dash: "3 5", marker: "ring", width: 2 },
];

function arm_style(name) {
  if (!known_looks.has(name))
    known_looks.set(name, spare_looks[(known_looks.size - 5) % spare_looks.length]);
  return known_looks.get(name);
}

const marker_paths = {
  square: (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  diamond: (r) => `M0,${-1.35 * r}L${1.35 * r},0L0,${1.35 * r}L${-1.35 * r},0z`,
  triangle: (r) => `M0,${-1.2 * r}L${1.2 * r},${r}L${-1.2 * r},${r}z`,
  down: (r) => `M0,${1.2 * r}L${1.2 * r},${-r}L${-1.2 * r},${-r}z`,
  bar: (r) => `M${-0.4 * r},${-1.3 * r}h${0.8 * r}v${2.6 * r}h${-0.8 * r}z`,
  plus: (r) => `M${-r},0H${r}M0,${-r}V${r}`,
  cross: (r) => `M${-r},${-r}L${r},${r}M${-r},${r}L${r},${-r}`,
};

/** A marker centred at x, y; "cross" and "plus" are strokes, the others are filled. */
function marker(kind, x, y, r, attributes = {}) {
  const open = kind === "cross" || kind === "plus" || kind === "ring";
  const names = `${open ? "open-mark" : "mark"} ${attributes.class ?? ""}`;
  if (!Object.hasOwn(marker_paths, kind))
    return svg("circle", { ...attributes, class: names, cx: x.toFixed(1), cy: y.toFixed(1), r });
  const place = `translate(${x.toFixed(1)},${y.toFixed(1)})`;
  return svg("path", { ...attributes, class: names, d: marker_paths[kind](r), transform: place });
}

/** A legend: each arm with the line and the marker that stand for it. */
function legend(arms, lines) {
  return el(
    "ul",
    { class: "legend" },
    arms.map((arm) => {
      const line =
        lines &&
        svg("line", {
          x1: 1,
          x2: 33,
          y1: 7,
          y2: 7,
          class: "curve",
          "stroke-dasharray": arm.style.dash,
          "stroke-width": arm.style.width,
        });
      const width = lines ? 34 : 14;
      const drawing = svg(
        "svg",
        { width, height: 14, viewBox: `0 0 ${width} 14`, "aria-hidden": "true" },
        line,
        marker(arm.style.marker, width / 2, 7, 3.5),
      );
      return el("li", { colour: arm.style.colour }, drawing, el("span", {}, arm.label));
    }),
  );
}

// One tooltip for the page. It is a live region, so that a screen reader says what the arrow keys
// reach.

function show_tip(x, y, stop) {
  const tip = document.getElementById("tip");
  const rows = list(stop.rows).map((row) =>
    el(
      "div",
      { class: "tip-row", colour: row.colour },
      row.colour ? el("i", {}) : null,
      el("span", {}, row.label),
      el("b", {}, row.value),
    ),
  );
  tip.replaceChildren(el("strong", {}, stop.title), ...rows);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = x + 16 + box.width < room ? x + 16 : Math.max(4, x - 16 - box.width);
  const top = y - 12 - box.height > 4 ? y - 12 - box.height : y + 18;
  tip.style.left = `${left}px`;
  tip.style.top = `${top}px`;
}

function hide_tip() {
  document.getElementById("tip").hidden = true;
}

/**
 * Makes a chart readable by pointer and keyboard. A stop is { x, y, title, rows, key }; the pointer
 * gets the nearest one, by x only for curves, arrow keys walk along those with `key` (all, if none
 * has it).
 */
function attach_stops(chart, box, stops, by_x) {
  if (stops.length === 0) return;
  stops.sort((a, b) => a.x - b.x);
  const keyed = stops.filter((s) => s.key);
  const walk = keyed.length > 0 ? keyed : stops;
  const cursor = by_x
    ? svg("line", { class: "cursor", y1: box.top, y2: box.bottom, visibility: "hidden" })
    : svg("circle", { class: "cursor", r: 7, visibility: "hidden" });
  chart.append(cursor);
  chart.setAttribute("tabindex", "0");
  let index = -1;

  const show = (stop) => {
    for (const [name, value] of by_x
      ? [
          ["x1", stop.x],
          ["x2", stop.x],
        ]
      : [
          ["cx", stop.x],
          ["cy", stop.y],
        ])
      cursor.setAttribute(name, value);
    cursor.setAttribute("visibility", "visible");
    const area = chart.getBoundingClientRect();
    const scale = area.width / box.width;
    show_tip(area.left + stop.x * scale, area.top + stop.y * scale, stop);
  };
  const hide = () => {
    cursor.setAttribute("visibility", "hidden");
    hide_tip();
  };
  const at_pointer = (event) => {
    const area = chart.getBoundingClientRect();
    const scale = box.width / (area.width || 1);
    const found = nearest(
      stops,
      (event.clientX - area.left) * scale,
      (event.clientY - area.top) * scale,
      by_x,
    );
    if (!found) return hide();
    index = walk.indexOf(found);
    show(found);
  };
  const at_key = (event) => {
    const last = walk.length - 1;
    const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") return hide();
    if (next === undefined) return;
    event.preventDefault();
    index = Math.min(last, Math.max(0, next));
    show(walk[index]);
  };
  chart.addEventListener("pointermove", at_pointer);
  chart.addEventListener("pointerdown", at_pointer);
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("keydown", at_key);
  chart.addEventListener("focus", () => {
    if (chart.matches(":focus-visible")) show(walk[(index = Math.max(0, index))]);
  });
  chart.addEventListener("blur", hide);
}

function nearest(stops, x, y, by_x) {
  let best = null;
  let best_distance = by_x ? Infinity : 28;
  for (const stop of stops) {
    const distance = by_x ? Math.abs(stop.x - x) : Math.hypot(stop.x - x, stop.y - y);
    if (distance < best_distance) [best, best_distance] = [stop, distance];
  }
  return best;
}
