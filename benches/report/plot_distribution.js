// SPDX-License-Identifier: BSL-1.0
// A distribution as a percentile plot: what share of the samples stayed below y. The x axis is
// 1/(1-p), logarithmic, so that the tail, which is what a user feels, gets as much room as the
// rest.

const shown_percentiles = [0, 0.5, 0.9, 0.99, 0.999, 0.9999];
const tail_end = 4; // decades of 1/(1-p): up to p99.99

function tail_of(p) {
  return -Math.log10(1 - p);
}

function distribution_figure(distribution, arms) {
  const data = arms_with(distribution, arms, distribution_of);
  if (data.length === 0) return empty_figure(distribution, "no samples");
  const label = clean(distribution.label ?? distribution.name, 100);
  return el(
    "figure",
    { class: "figure" },
    el(
      "figcaption",
      {},
      el("h3", {}, `${capital(label)}, by percentile`),
      el(
        "p",
        { class: "hint" },
        "Both axes logarithmic. Lower is better; the right end is the worst of the tail.",
      ),
    ),
    el(
      "div",
      { class: "with-table" },
      el(
        "div",
        {},
        legend(
          data.map((d) => d.arm),
          true,
        ),
        place_for((width) => draw_percentiles(data, distribution.unit, label, width)),
      ),
      quantile_table(data, distribution.unit, label),
    ),
  );
}

/** The arms for which `read` finds data, as { arm, data }. */
function arms_with(item, arms, read) {
  const found = arms.map((arm) => ({ arm, data: read(member(item.arms, arm.name)) }));
  return found.filter((d) => d.data !== null);
}

function empty_figure(item, what) {
  return el("p", { class: "hint" }, `${capital(clean(item.label ?? item.name, 100))}: ${what}.`);
}

function capital(text) {
  if (/^\w*_/.test(text)) return text; // co_await stays what it is
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function quantile_table(data, unit, label) {
  const head = ["", "p50", "p90", "p99", "p99.9", "max", "samples"];
  const rows = data.map(({ arm, data: d }) => [
    arm_label(arm),
    ...[0.5, 0.9, 0.99, 0.999].map((p) => format_value(d.quantile(p), unit)),
    format_value(d.max, unit),
    format_number(d.count),
  ]);
  return table(`Quantiles: ${label}`, head, rows, { class: "compact" });
}

function arm_label(arm) {
  return el("span", { class: "arm", colour: arm.style.colour }, el("i", {}), arm.label);
}

function draw_percentiles(data, unit, label, width) {
  const height = Math.round(Math.min(330, Math.max(240, width * 0.55)));
  const box = { width, left: 58, right: width - 14, top: 10, bottom: height - 40 };
  const chart = new_chart(
    "distribution",
    width,
    height,
    `${label}: percentiles of ${join_words(data.map((d) => d.arm.label))}`,
  );
  const longest = max_of(data.map((d) => Math.log10(d.data.count)));
  const x = linear_scale(0, Math.min(tail_end, Math.max(1, longest)), box.left, box.right);
  const y = latency_scale(data, box);
  draw_y_axis(chart, box, y, tick_writer(unit, y.high, y.log));
  const ticks = shown_percentiles
    .map((p) => ({ text: percentile_name(p), at: tail_of(p) }))
    .filter((t) => t.at <= x.high + 0.01);
  draw_x_axis(chart, box, { map: (t) => x.map(t.at) }, null, "percentile", ticks);
  for (const { arm, data: d } of data) chart.append(percentile_curve(arm, d, x, y));
  attach_stops(chart, box, percentile_stops(data, unit, x, y), true);
  return chart;
}

/** From a little below the median of the best arm to the worst maximum shown, at round values. */
function latency_scale(data, box) {
  const end = 1 - 10 ** -tail_end;
  const lows = data
    .map(({ data: d }) => [0.1, 0.25, 0.5, 0.9, 1].map((p) => d.quantile(p)).find((v) => v > 0))
    .filter((v) => v > 0);
  const high = max_of(data.map(({ data: d }) => d.quantile(end)));
  if (lows.length === 0)
    return linear_scale(
      Math.min(0, ...data.map((d) => d.data.min)),
      Math.max(0, high),
      box.bottom,
      box.top,
    );
  return log_scale(round_down_125(min_of(lows)), round_up_125(high), box.bottom, box.top);
}

/**
 * The line of one arm: as many points as there are pixels, taken from all samples; it ends where
 * the samples do.
 */
function percentile_curve(arm, d, x, y) {
  const end = Math.min(x.high, Math.max(0.05, Math.log10(d.count)));
  const steps = 240;
  const points = [];
  for (let i = 0; i <= steps; ++i) {
    const tail = (end * i) / steps;
    points.push([x.map(tail), y.map(d.quantile(1 - 10 ** -tail))]);
  }
  // Where the samples end before the axis does, the last one is the maximum.
  if (Math.log10(d.count) < tail_end) points.push([x.map(end), y.map(d.max)]);
  const markers = shown_percentiles
    .slice(1)
    .map(tail_of)
    .filter((t) => t <= end + 0.01)
    .map((t) => marker(arm.style.marker, x.map(t), y.map(d.quantile(1 - 10 ** -t)), 3.5));
  return svg(
    "g",
    { colour: arm.style.colour },
    svg("path", {
      class: "curve",
      d: path_of(points),
      "stroke-dasharray": arm.style.dash,
      "stroke-width": arm.style.width,
    }),
    markers,
  );
}

function percentile_stops(data, unit, x, y) {
  const stops = [];
  for (const p of [
    0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999,
  ]) {
    if (tail_of(p) > x.high + 0.01) continue;
    const rows = data.map(({ arm, data: d }) => ({
      colour: arm.style.colour,
      label: arm.label,
      value: format_value(d.quantile(p), unit),
    }));
    stops.push({
      x: x.map(tail_of(p)),
      y: y.map(data[0].data.quantile(p)),
      title: percentile_name(p),
      rows,
      key: true,
    });
  }
  return stops;
}
