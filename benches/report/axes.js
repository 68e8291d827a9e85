// SPDX-License-Identifier: BSL-1.0
// Scales, axes and the frame of a chart. A scale maps a value to a coordinate and proposes its
// ticks.

function linear_scale(low, high, from, to) {
  if (!(high > low))
    [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.05, low + Math.abs(low) * 0.05];
  const map = (v) => from + ((v - low) / (high - low)) * (to - from);
  return { map, low, high, log: false, ticks: (count) => linear_ticks(low, high, count) };
}

function linear_ticks(low, high, count) {
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? 10 * power;
  const ticks = [];
  // Counted, not added up: 0.1 + 0.2 would write 0.30000000000000004.
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; ++i)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** A logarithmic scale; what is not above its lower end is drawn there. */
function log_scale(low, high, from, to) {
  if (!(high > low)) [low, high] = [low / 2, low * 2];
  const width = Math.log10(high / low);
  const map = (v) => from + (v > low ? Math.log10(v / low) / width : 0) * (to - from);
  return { map, low, high, log: true, ticks: (count) => log_ticks(low, high, count) };
}

/**
 * Decades; with 2 and 5 between them where there is room; every second decade where there is none.
 */
function log_ticks(low, high, count) {
  const decades = Math.log10(high / low);
  const steps = decades * 3 <= count ? [1, 2, 5] : decades * 2 <= count ? [1, 3] : [1];
  const stride = Math.max(1, Math.ceil(decades / Math.max(1, count)));
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high) + 1e-9; ++e) {
    if (stride > 1 && e % stride !== 0) continue;
    for (const m of steps) {
      const v = Number(`${m}e${e}`);
      if (v >= low * 0.999 && v <= high * 1.001) ticks.push(v);
    }
  }
  return ticks;
}

function round_down_125(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return ([5, 2, 1].find((m) => m * power <= v * 1.0001) ?? 1) * power;
}

function round_up_125(v) {
  const power = 10 ** Math.floor(Math.log10(v));
  return ([1, 2, 5, 10].find((m) => m * power >= v * 0.9999) ?? 10) * power;
}

/** An empty chart as wide as its place. The view box lets a printed page scale it. */
function new_chart(kind, width, height, title) {
  return svg("svg", {
    class: "chart",
    "data-chart": kind,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": title,
  });
}

// The text of an axis is drawn at 11 px, about 6.2 px a character; labels that would touch are left
// out.
const character_width = 6.2;

function text_width(text) {
  return text.length * character_width;
}

/** Grid lines and labels of the x axis below `box`. */
function draw_x_axis(
  chart,
  box,
  scale,
  write,
  title,
  ticks = scale.ticks(Math.max(2, (box.right - box.left) / 56)),
) {
  let free = -Infinity;
  for (const v of ticks) {
    const x = scale.map(v);
    const text = typeof v === "object" ? v.text : write(v);
    chart.append(
      svg("line", {
        class: "grid",
        x1: x.toFixed(1),
        x2: x.toFixed(1),
        y1: box.top,
        y2: box.bottom,
      }),
    );
    const half = text_width(text) / 2;
    const middle = Math.min(x, box.width - half - 1);
    if (middle - half < free) continue;
    free = middle + half + 8;
    chart.append(
      svg(
        "text",
        { class: "tick", x: middle.toFixed(1), y: box.bottom + 15, "text-anchor": "middle" },
        text,
      ),
    );
  }
  if (title)
    chart.append(
      svg("text", { class: "axis", x: box.right, y: box.bottom + 31, "text-anchor": "end" }, title),
    );
}

/** Grid lines and labels of the y axis left of `box`. */
function draw_y_axis(
  chart,
  box,
  scale,
  write,
  ticks = scale.ticks(Math.max(2, (box.bottom - box.top) / 34)),
) {
  for (const v of ticks) {
    const y = scale.map(v);
    chart.append(
      svg("line", {
        class: "grid",
        x1: box.left,
        x2: box.right,
        y1: y.toFixed(1),
        y2: y.toFixed(1),
      }),
    );
    chart.append(
      svg(
        "text",
        { class: "tick", x: box.left - 7, y: (y + 3.8).toFixed(1), "text-anchor": "end" },
        write(v),
      ),
    );
  }
}

/** "M x,y L x,y ..." with a tenth of a pixel: more only makes the page slower. */
function path_of(points) {
  return points
    .map(([x, y], i) => `${i === 0 ? "M" : "L"}${x.toFixed(1)},${y.toFixed(1)}`)
    .join("");
}

// Charts are drawn for the width they have: scaling a drawing would make its text unreadable on a
// phone. Each place remembers how to draw itself again.
const places = [];

/** A place for a chart; `draw(width)` returns it. */
function place_for(draw) {
  const host = el("div", { class: "host" });
  places.push({ host, draw, width: 0 });
  return host;
}

/**
 * Draws the places whose width has changed. All widths are read first: to read one between two
 * changes is slow.
 */
function draw_places(width_of = screen_width) {
  const widths = places.map(({ host }) => width_of(host));
  places.forEach((place, i) => {
    const width = Math.max(240, Math.floor(widths[i]));
    if (place.width === width) return;
    place.width = width;
    place.host.replaceChildren(guarded("This figure could not be drawn", () => place.draw(width)));
  });
}

/**
 * A chart in a panel that is not shown gets the width of the page; showing the panel draws it again
 * where that is wrong.
 */
function screen_width(host) {
  return (
    host.clientWidth ||
    (host.closest("section")?.clientWidth ?? 720) * (host.closest(".half") ? 0.48 : 1)
  );
}

/**
 * On paper two metrics stand side by side; A4 and Letter have about 700 px between their margins.
 */
function paper_width(host) {
  return host.closest(".half") ? 335 : 700;
}

/** One part that fails must not take the page with it: it says so in its own place. */
function guarded(message, make) {
  try {
    return make();
  } catch (error) {
    console.error(error);
    return el("p", { class: "notice bad broken" }, `${message}: ${clean(String(error))}`);
  }
}
