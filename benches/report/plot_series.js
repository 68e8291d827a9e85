// SPDX-License-Identifier: BSL-1.0
// A curve against a parameter, with the interval of each median as a whisker.

function series_figure(series, arms) {
  const data = arms_with(series, arms, series_points);
  if (data.length === 0) return empty_figure(series, "no points");
  const label = clean(series.label ?? series.name, 100);
  const unit = series.y_label ?? series.unit;
  return el(
    "figure",
    { class: "figure" },
    el(
      "figcaption",
      {},
      el("h3", {}, capital(label)),
      el(
        "p",
        { class: "hint" },
        "Medians; the whiskers are their 95 % confidence intervals, of fewer than six repetitions " +
          "their range.",
      ),
    ),
    legend(
      data.map((d) => d.arm),
      true,
    ),
    place_for((width) => draw_series(data, series, unit, label, width)),
    el("details", {}, el("summary", {}, "Numbers"), series_table(data, series, unit, label)),
  );
}

/** [[x, median, low, high], ...] in the order of x; null when there is none. */
function series_points(given) {
  const points = list(given).filter((p) => Array.isArray(p) && is_number(p[0]) && is_number(p[1]));
  return points.length > 0 ? points.sort((a, b) => a[0] - b[0]) : null;
}

function series_table(data, series, unit, label) {
  const head = ["", clean(series.x_label ?? "x", 40), "median", "from", "to"];
  const rows = data.flatMap(({ arm, data: points }) =>
    points.map((p) => [
      arm_label(arm),
      format_number(p[0]),
      ...[1, 2, 3].map((i) => format_value(p[i], unit)),
    ]),
  );
  return table(label, head, rows);
}

function draw_series(data, series, unit, label, width) {
  const height = Math.round(Math.min(320, Math.max(230, width * 0.5)));
  const box = { width, left: 64, right: width - 22, top: 26, bottom: height - 40 };
  const chart = new_chart(
    "series",
    width,
    height,
    `${label} for ${join_words(data.map((d) => d.arm.label))}`,
  );
  const points = data.flatMap((d) => d.data);
  const x = axis_for(
    points.map((p) => p[0]),
    series.x_log === true,
    box.left + 12,
    box.right - 4,
  );
  const y = value_axis(
    points.flatMap((p) => p.slice(1).filter(is_number)),
    box,
  );
  draw_y_axis(chart, box, y, tick_writer(unit, y.high, y.log));
  draw_x_axis(
    chart,
    box,
    x,
    short_number,
    clean(series.x_label ?? "", 60),
    x.log ? log_ticks(x.low, x.high, (box.right - box.left) / 60) : undefined,
  );
  chart.append(svg("text", { class: "axis", x: 4, y: 13 }, clean(unit ?? "", 60)));
  data.forEach((d, i) => chart.append(series_curve(d, x, y, (i - (data.length - 1) / 2) * 4)));
  attach_stops(chart, box, series_stops(data, series, unit, x, y), true);
  return chart;
}

function axis_for(values, log, from, to) {
  const low = min_of(values);
  const high = max_of(values);
  return log && low > 0 ? log_scale(low, high, from, to) : linear_scale(low, high, from, to);
}

/** A cost is read from zero, unless it spans so much that only a logarithm shows it. */
function value_axis(values, box) {
  const low = min_of(values);
  const high = max_of(values);
  if (low > 0 && high / low > 50)
    return log_scale(round_down_125(low), round_up_125(high), box.bottom, box.top);
  return linear_scale(Math.min(0, low), Math.max(0, high) * 1.08, box.bottom, box.top);
}

/** `shift` moves an arm's whiskers aside, so that those of two arms do not cover each other. */
function series_curve({ arm, data: points }, x, y, shift) {
  const line = path_of(points.map((p) => [x.map(p[0]) + shift, y.map(p[1])]));
  const whiskers = points
    .filter((p) => is_number(p[2]) && is_number(p[3]))
    .map((p) => {
      const [at, low, high] = [
        (x.map(p[0]) + shift).toFixed(1),
        y.map(p[2]).toFixed(1),
        y.map(p[3]).toFixed(1),
      ];
      return svg("path", {
        class: "whisker",
        d: `M${at},${low}V${high}m-4,0h8M${at - 4},${low}h8`,
      });
    });
  const markers = points.map((p) =>
    marker(arm.style.marker, x.map(p[0]) + shift, y.map(p[1]), 3.5),
  );
  return svg(
    "g",
    { colour: arm.style.colour },
    svg("path", {
      class: "curve",
      d: line,
      "stroke-dasharray": arm.style.dash,
      "stroke-width": arm.style.width,
    }),
    whiskers,
    markers,
  );
}

function series_stops(data, series, unit, x, y) {
  const at = new Map();
  for (const { arm, data: points } of data) {
    for (const p of points) {
      const stop = at.get(p[0]) ?? {
        x: x.map(p[0]),
        y: y.map(p[1]),
        title: `${clean(series.x_label ?? "x", 40)}: ${format_number(p[0])}`,
        rows: [],
        key: true,
      };
      const spread =
        is_number(p[2]) && is_number(p[3])
          ? ` (${format_value(p[2], unit, false)} to ${format_value(p[3], unit, false)})`
          : "";
      stop.rows.push({
        colour: arm.style.colour,
        label: arm.label,
        value: format_value(p[1], unit, false) + spread,
      });
      at.set(p[0], stop);
    }
  }
  return Array.from(at.values());
}
