// SPDX-License-Identifier: BSL-1.0
// One run in detail: how late the probe was, above the turns of the hog and what was done about it.
// The arms stand one above the other with the same time axis and the same scale, so that the eye
// can compare them.

const span_names = {
  hog: "the hog runs",
  parked: "parked",
  isolated: "isolated",
  critical: "critical section",
};
const mark_looks = {
  warn: ["triangle", "var(--warn)"],
  yield: ["bar", "var(--pulse)"],
  isolate: ["diamond", "var(--good)"],
  demote: ["down", "var(--arm4)"],
  stall: ["cross", "var(--bad)"],
  hint: ["ring", "var(--arm3)"],
};
const row_height = 13;
const most_rows = 12;

function timeline_figure(timeline, arms) {
  const data = arms_with(timeline, arms, timeline_arm);
  if (data.length === 0) return empty_figure(timeline, "nothing recorded");
  const state = { log: false };
  const label = clean(timeline.label ?? timeline.name, 100);
  const host = place_for((width) => draw_timeline(data, state.log, label, width));
  const toggle = el(
    "button",
    { type: "button", class: "quiet", "aria-pressed": "false" },
    "Logarithmic",
  );
  toggle.addEventListener("click", () => {
    state.log = !state.log;
    toggle.setAttribute("aria-pressed", String(state.log));
    host.replaceChildren(
      guarded("This figure could not be drawn", () =>
        draw_timeline(data, state.log, label, host.clientWidth),
      ),
    );
  });
  return el(
    "figure",
    { class: "figure" },
    el(
      "figcaption",
      { class: "split" },
      el(
        "div",
        {},
        el("h3", {}, `How late, over time: ${label}`),
        el(
          "p",
          { class: "hint" },
          "Same axes for every arm. The rows below show whose turn it was and what was done.",
        ),
      ),
      toggle,
    ),
    host,
    el("details", {}, el("summary", {}, "Numbers"), timeline_table(data)),
  );
}

/**
 * { end, probe, rows } of one arm; each row is a kind of span or mark. null when there is nothing
 * to show.
 */
function timeline_arm(given) {
  const arm = record(given);
  const timed = (items) =>
    list(items)
      .filter((i) => Array.isArray(i) && is_number(i[0]))
      .sort((a, b) => a[0] - b[0]);
  const probe = timed(arm.probe).filter((p) => is_number(p[1]));
  const spans = timed(arm.spans).filter((s) => is_number(s[1]) && s[1] >= 0);
  const marks = timed(arm.marks);
  if (probe.length + spans.length + marks.length === 0) return null;
  const ends = [
    ...probe.map((p) => p[0]),
    ...spans.map((s) => s[0] + s[1]),
    ...marks.map((m) => m[0]),
  ];
  const end = Math.max(is_number(arm.duration_ms) ? arm.duration_ms : 0, max_of(ends));
  return {
    start: Math.min(0, min_of(ends)),
    end,
    probe,
    rows: [...rows_of(spans, 2, "span"), ...rows_of(marks, 1, "mark")],
  };
}

/**
 * Groups spans or marks by their kind, in the order in which the kinds first appear; too many kinds
 * share a last row.
 */
function rows_of(items, kind_at, type) {
  const rows = new Map();
  for (const item of items) {
    const own = name_of(item[kind_at], "other");
    const kind = rows.has(own) || rows.size < most_rows / 2 ? own : "other";
    if (!rows.has(kind)) rows.set(kind, { kind, type, items: [] });
    rows.get(kind).items.push(item);
  }
  return Array.from(rows.values());
}

function draw_timeline(data, log, label, width) {
  const plot_height = 96;
  const lane_heights = data.map((d) => 24 + plot_height + 8 + row_height * d.data.rows.length + 14);
  const height = lane_heights.reduce((a, b) => a + b, 0) + 30;
  const chart = new_chart(
    "timeline",
    width,
    height,
    `Timeline: ${label}, ${join_words(data.map((d) => d.arm.label))}`,
  );
  const box = { width, left: 62, right: width - 16, top: 0, bottom: height - 36 };
  const x = linear_scale(
    min_of(data.map((d) => d.data.start)),
    max_of(data.map((d) => d.data.end)),
    box.left,
    box.right,
  );
  const values = data.flatMap((d) => d.data.probe.map((p) => p[1]));
  const stops = [];
  let top = 0;
  data.forEach((d, i) => {
    const lane = { ...box, top: top + 24, bottom: top + 24 + plot_height };
    draw_lane(chart, d, lane, x, lateness_axis(values, log, lane), stops);
    top += lane_heights[i];
  });
  draw_x_axis(
    chart,
    { ...box, top: box.bottom, bottom: box.bottom },
    x,
    tick_writer("ms", x.high, false),
    "time in the run",
  );
  attach_stops(chart, box, stops, false);
  return chart;
}

function lateness_axis(values, log, lane) {
  const high = Math.max(0, max_of(values));
  const positive = values.filter((v) => v > 0);
  if (!log || positive.length === 0)
    return linear_scale(Math.min(0, min_of(values)), high * 1.05 || 1, lane.bottom, lane.top);
  // The lowest percent would stretch the axis to where nothing is to be seen.
  const low = distribution_of({ samples: positive }).quantile(0.01);
  return log_scale(round_down_125(low), round_up_125(high), lane.bottom, lane.top);
}

function draw_lane(chart, { arm, data: d }, lane, x, y, stops) {
  const group = svg("g", { colour: arm.style.colour });
  chart.append(group);
  group.append(
    marker(arm.style.marker, lane.left + 5, lane.top - 12, 3.5),
    svg("text", { class: "lane", x: lane.left + 15, y: lane.top - 8 }, arm.label),
  );
  const worst =
    d.probe.length > 0
      ? `worst ${format_value(max_of(d.probe.map((p) => p[1])), "ms")}`
      : "no probe";
  group.append(
    svg("text", { class: "tick", x: lane.right, y: lane.top - 8, "text-anchor": "end" }, worst),
  );
  draw_y_axis(group, lane, y, tick_writer("ms", y.high, y.log), y.ticks(y.log ? 4 : 3));
  draw_probe(group, arm, d, lane, x, y, stops);
  d.rows.forEach((row, i) => {
    const middle = lane.bottom + 8 + row_height * (i + 0.5);
    group.append(
      svg(
        "text",
        { class: "kind", x: lane.left - 7, y: middle + 3.6, "text-anchor": "end" },
        clean(row.kind, 9),
      ),
      svg("line", { class: "rule", x1: lane.left, x2: lane.right, y1: middle, y2: middle }),
    );
    (row.type === "span" ? draw_spans : draw_marks)(group, row, x, middle, stops, arm);
  });
}

function draw_probe(group, arm, d, lane, x, y, stops) {
  const columns = Math.max(60, Math.floor(lane.right - lane.left));
  const points = thin(d.probe, d.start, x.high, columns).map((p) => ({
    at: p,
    x: x.map(p[0]),
    y: Math.min(lane.bottom, y.map(p[1])),
  }));
  if (points.length === 0) return;
  const line = path_of(points.map((p) => [p.x, p.y]));
  const [first, last] = [points[0].x.toFixed(1), points[points.length - 1].x.toFixed(1)];
  group.append(
    svg("path", { class: "area", d: `${line}L${last},${lane.bottom}L${first},${lane.bottom}z` }),
    svg("path", { class: "curve thin", d: line }),
  );
  for (const p of points) {
    stops.push({
      x: p.x,
      y: p.y,
      title: `${arm.label}, at ${format_value(p.at[0], "ms")}`,
      rows: [
        {
          colour: arm.style.colour,
          label: "the probe was late by",
          value: format_value(p.at[1], "ms"),
        },
      ],
    });
  }
}

/**
 * Spans that touch within a pixel are drawn as one: thousands of short steps are a band to the eye,
 * too.
 */
function draw_spans(group, row, x, middle, stops, arm) {
  const known = Object.hasOwn(span_names, row.kind);
  let open = null;
  const close = () => {
    if (!open) return;
    const right = Math.max(x.map(open.end), x.map(open.start) + 1);
    const left = x.map(open.start);
    group.append(
      svg("rect", {
        class: `span ${known ? row.kind : "other"}`,
        x: left.toFixed(1),
        y: middle - 4,
        width: (right - left).toFixed(1),
        height: 8,
      }),
    );
    const value =
      open.count > 1
        ? `${plural(open.count, "turn")}, ${format_value(open.busy, "ms")} in all`
        : format_value(open.busy, "ms");
    stops.push({
      x: (left + right) / 2,
      y: middle,
      key: true,
      title: `${arm.label}, from ${format_value(open.start, "ms")}`,
      rows: [{ label: known ? span_names[row.kind] : clean(row.kind, 60), value }],
    });
  };
  for (const [start, duration] of row.items) {
    const end = start + duration;
    if (open && x.map(start) - x.map(open.end) < 1) {
      open = {
        start: open.start,
        end: Math.max(open.end, end),
        count: open.count + 1,
        busy: open.busy + duration,
      };
    } else {
      close();
      open = { start, end, count: 1, busy: duration };
    }
  }
  close();
}

/** Marks closer than they are wide become one that tells how many it stands for. */
function draw_marks(group, row, x, middle, stops, arm) {
  const [shape, colour] = Object.hasOwn(mark_looks, row.kind)
    ? mark_looks[row.kind]
    : ["square", "var(--quiet)"];
  let open = null;
  const close = () => {
    if (!open) return;
    group.append(svg("g", { colour }, marker(shape, open.x, middle, 3.6)));
    const many = open.items.length > 1;
    const what = `${clean(row.kind, 40)}${many ? ` (${format_number(open.items.length)})` : ""}`;
    const title = `${arm.label}, ${what} at ${format_value(open.items[0][0], "ms")}`;
    stops.push({
      x: open.x,
      y: middle,
      key: true,
      title,
      rows: open.items.slice(0, 3).map((m) => ({ label: clean(m[2] ?? row.kind, 160), value: "" })),
    });
  };
  for (const item of row.items) {
    const at = x.map(item[0]);
    if (open && at - open.x < 6) open.items.push(item);
    else {
      close();
      open = { x: at, items: [item] };
    }
  }
  close();
}

function timeline_table(data) {
  const most = 200;
  const rows = data.flatMap(({ arm, data: d }) =>
    d.rows.flatMap((row) =>
      row.items
        .slice(0, most)
        .map((item) => [
          arm_label(arm),
          clean(row.kind, 40),
          format_value(item[0], "ms"),
          row.type === "span" ? format_value(item[1], "ms") : absent,
          row.type === "mark" ? clean(item[2], 200) : absent,
        ]),
    ),
  );
  const left_out = data.some((d) => d.data.rows.some((row) => row.items.length > most));
  return el(
    "div",
    {},
    table("Spans and marks", ["", "kind", "at", "lasted", "text"], rows, { class: "wordy" }),
    left_out
      ? el("p", { class: "hint" }, `Of each kind the first ${most}; all are in the JSON.`)
      : null,
  );
}
