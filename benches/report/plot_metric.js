// SPDX-License-Identifier: BSL-1.0
// A metric as dots, one for each repetition, so that the spread is visible; the median and its
// interval are above them.

function metric_figure(metric, arms) {
  const data = arms_with(metric, arms, metric_arm);
  if (data.length === 0) return empty_figure(metric, "not measured");
  const label = clean(metric.label ?? metric.name, 100);
  const better = { lower: "lower is better", higher: "higher is better" }[metric.better];
  return el(
    "figure",
    { class: "figure small" },
    el(
      "figcaption",
      {},
      el("h3", {}, capital(label)),
      el("p", { class: "hint" }, [wide_unit(metric.unit), better].filter(Boolean).join(", ")),
    ),
    place_for((width) => draw_metric(data, metric, label, width)),
  );
}

/** The value that every repetition of every arm has; undefined where there is any spread. */
function constant_of(metric, arms) {
  const values = arms_with(metric, arms, metric_arm).flatMap(({ data: d }) => [
    ...d.samples,
    d.median,
  ]);
  return values.length > 0 && values.every((v) => v === values[0]) ? values[0] : undefined;
}

/** A unit too long for every row ("bytes a connection") is told once, in the caption. */
function wide_unit(unit) {
  return typeof unit === "string" && !split_unit(unit) && unit.length > 4 ? clean(unit, 40) : "";
}

function row_value(value, unit) {
  return format_value(value, wide_unit(unit) ? "" : unit, false);
}

function metric_arm(given) {
  const samples = list(record(given).samples).filter(is_number);
  const { median, low, high } = record(given);
  if (!is_number(median) && samples.length === 0) return null;
  const middle = is_number(median) ? median : distribution_of({ samples }).quantile(0.5);
  const interval = is_number(low) && is_number(high);
  return {
    samples,
    median: middle,
    low: interval ? low : middle,
    high: interval ? high : middle,
    interval,
  };
}

function draw_metric(data, metric, label, width) {
  const row = 34;
  const longest = max_of(data.map((d) => text_width(d.arm.label)));
  const left = Math.min(longest * 1.06 + 14, width * 0.42, 190);
  const value_room =
    max_of(data.map((d) => row_value(d.data.median, metric.unit).length)) * 7.4 + 12;
  const box = { width, left, right: width - value_room, top: 4, bottom: 4 + row * data.length };
  const medians = data.map((d) => `${d.arm.label} ${row_value(d.data.median, metric.unit)}`);
  const chart = new_chart("metric", width, box.bottom + 22, `${label}: ${join_words(medians)}`);
  const x = spread_axis(
    data.flatMap(({ data: d }) => [...d.samples, d.median, d.low, d.high]),
    box,
  );
  draw_x_axis(
    chart,
    box,
    x,
    tick_writer(metric.unit, Math.max(Math.abs(x.low), Math.abs(x.high)), x.log),
  );
  data.forEach((d, i) => chart.append(metric_row(d, metric, x, box, box.top + row * (i + 0.5))));
  attach_stops(
    chart,
    box,
    data.map((d, i) => metric_stop(d, metric, x, box.top + row * (i + 0.5))),
    false,
  );
  return chart;
}

/** From zero when that costs little room; logarithmic when the arms are far apart. */
function spread_axis(values, box) {
  const low = min_of(values);
  const high = max_of(values);
  if (low > 0 && high / low > 30) return log_scale(low / 1.3, high * 1.3, box.left, box.right);
  const room = (high - low) * 0.08 || Math.abs(high) * 0.05;
  return linear_scale(
    low >= 0 && low < high * 0.5 ? 0 : low - room,
    high + room,
    box.left,
    box.right,
  );
}

/** The dots stand in the order of the repetitions from top to bottom: a drift shows as a slope. */
function metric_row({ arm, data: d }, metric, x, box, y) {
  const n = d.samples.length;
  const dots = d.samples.map((v, i) =>
    svg("circle", {
      class: "dot",
      cx: x.map(v).toFixed(1),
      cy: (y + (n > 1 ? (i / (n - 1) - 0.5) * 16 : 0)).toFixed(1),
      r: 2.6,
    }),
  );
  const middle = x.map(d.median).toFixed(1);
  const [low, high] = [x.map(d.low), x.map(d.high)];
  const interval = d.interval
    ? svg("rect", {
        class: "interval",
        x: low.toFixed(1),
        y: y - 10,
        width: Math.max(1, high - low).toFixed(1),
        height: 20,
        rx: 2,
      })
    : null;
  const room = Math.floor((box.left - 12) / character_width);
  return svg(
    "g",
    { colour: arm.style.colour },
    interval,
    dots,
    svg("line", { class: "median", x1: middle, x2: middle, y1: y - 11, y2: y + 11 }),
    svg(
      "text",
      { class: "row", x: box.left - 10, y: y + 4, "text-anchor": "end" },
      cut(arm.label, room),
    ),
    svg("text", { class: "value", x: box.right + 8, y: y + 4 }, row_value(d.median, metric.unit)),
  );
}

function cut(text, limit) {
  const points = Array.from(text);
  return points.length > limit ? `${points.slice(0, Math.max(1, limit - 1)).join("")}…` : text;
}

function metric_stop({ arm, data: d }, metric, x, y) {
  const rows = [{ label: "median", value: format_value(d.median, metric.unit) }];
  if (d.interval)
    rows.push({
      label: interval_name(d.samples.length),
      value: range_text([d.low, d.high], metric.unit),
    });
  if (d.samples.length > 0)
    rows.push({
      label: plural(d.samples.length, "repetition"),
      value: range_text(d.samples, metric.unit),
    });
  const ratio = ratio_of(metric, arm.name);
  if (ratio) rows.push({ label: "to stock", value: interval_text(ratio) });
  return { x: x.map(d.median), y, title: arm.label, rows, key: true };
}

function range_text(samples, unit) {
  const [low, high] = [min_of(samples), max_of(samples)];
  return `${format_value(low, unit, false)} to ${format_value(high, unit, false)}`;
}

/** "0.012 [0.011 .. 0.013]" */
function interval_text({ median, low, high }) {
  const range =
    is_number(low) && is_number(high) ? ` [${format_number(low)} .. ${format_number(high)}]` : "";
  return `×${format_number(median)}${range}`;
}

/** All metrics of a variant as numbers. */
function metrics_table(metrics, arms) {
  const head = ["metric, arm", "median", "from", "to", "arm / stock", "every repetition, in order"];
  const rows = metrics.flatMap((metric) =>
    arms_with(metric, arms, metric_arm).map(({ arm, data: d }) => {
      const ratio = ratio_of(metric, arm.name);
      const value = (v) => format_value(v, metric.unit);
      return [
        el("span", {}, `${clean(metric.label ?? metric.name, 80)} `, arm_label(arm)),
        value(d.median),
        d.interval ? value(d.low) : absent,
        d.interval ? value(d.high) : absent,
        ratio ? interval_text(ratio) : absent,
        repetitions_text(d.samples, metric.unit),
      ];
    }),
  );
  return table("Metrics", head, rows, { class: "wordy" });
}

function repetitions_text(samples, unit) {
  const shown = `${samples.slice(0, 40).map(format_number).join("  ")} ${clean(unit ?? "", 40)}`;
  return samples.length > 40
    ? `${shown}, and ${plural(samples.length - 40, "more", "more")} in the JSON`
    : shown;
}
