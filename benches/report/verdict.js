// SPDX-License-Identifier: BSL-1.0
// The meaning of a figure: whether asio-pulse is better or worse than stock, by how much, and how
// certain that is.

/**
 * A metric's ratio of one arm to stock: the harness's, which pairs repetitions; else that of the
 * medians, without spread.
 */
function ratio_of(metric, arm) {
  const given = record(member(metric.ratio_to_stock, arm));
  if (is_number(given.median)) return given;
  const own = record(member(metric.arms, arm)).median;
  const stock = record(member(metric.arms, "stock")).median;
  return arm !== "stock" && is_number(own) && is_number(stock) && stock > 0
    ? { median: own / stock }
    : null;
}

// A run that did not do its work is neither better nor worse.
const failed_verdict = { kind: "failed", short: "verification failed", long: "", range: "" };

/** The headline metric of a variant with its comparison; null when there is none with a number. */
function headline_of(variant, arms) {
  const metric = list(variant.metrics)
    .map(record)
    .find((m) => m.headline === true);
  return metric ? comparison_of(variant, arms, metric) : null;
}

/** One metric, asio-pulse against stock, with what a summary needs; null when it has no number. */
function comparison_of(variant, arms, metric) {
  const subject = subject_of(arms);
  const arm_data = (arm) => (arm ? record(member(metric.arms, arm.name)) : {});
  if (!subject || !is_number(arm_data(subject).median)) return null;
  const baseline = baseline_of(arms);
  const ratio = ratio_of(metric, subject.name);
  const repetitions = list(arm_data(subject).samples).length;
  const failed = variant.verified === false;
  return {
    metric,
    subject,
    baseline,
    own: arm_data(subject).median,
    stock: arm_data(baseline).median,
    median: (arm) => arm_data(arm).median,
    ratio,
    verdict: failed ? failed_verdict : judge(ratio, metric.better, repetitions),
  };
}

/**
 * What the interval of a median is called. The range of fewer than six repetitions holds the true
 * median with less than 95 % (2^(1-n) of the time it does not), so it must not be called that.
 */
function interval_name(repetitions) {
  if (repetitions > 0 && repetitions < 6) return `range of ${plural(repetitions, "repetition")}`;
  return "95\u00a0% CI";
}

/**
 * Two digits for what is derived from two measurements: more would promise what the spread does not
 * hold.
 */
function rough(value) {
  return format_number(Number(value.toPrecision(2)));
}

/**
 * Says what a ratio to the baseline means: { kind, short, long, range }. kind: better, worse, same,
 * neutral, failed, unknown.
 */
function judge(ratio, better, repetitions) {
  const r = ratio?.median;
  if (!is_number(r) || r < 0) return { kind: "unknown", short: "", long: "", range: "" };
  const low = is_number(ratio.low) ? ratio.low : r;
  const high = is_number(ratio.high) ? ratio.high : r;
  const interval = is_number(ratio.low) && is_number(ratio.high);
  const name = interval_name(repetitions);
  if (interval && low <= 1 && high >= 1) {
    const ends = `${format_number(low)} to ${format_number(high)}`;
    const range = `ratio ${format_number(r)}, ${name} ${ends}`;
    return {
      kind: "same",
      short: "no clear difference",
      long: "no difference that stands out of the spread",
      range,
    };
  }
  const kind = kind_of_change(r < 1, better);
  const word = r < 1 ? "lower" : "higher";
  return {
    kind,
    ...size_of_change(r, low, high, interval ? name : null, word, kind === "neutral" ? word : kind),
  };
}

function kind_of_change(lower, better) {
  if (better !== "lower" && better !== "higher") return "neutral";
  return lower === (better === "lower") ? "better" : "worse";
}

/** Large changes read best as a factor, small ones as a percentage. */
function size_of_change(r, low, high, name, word, verdict) {
  if (r === 0) return { short: "down to zero", long: "down to zero", range: "" };
  if (r >= 2 || r <= 0.5) {
    const ends = r < 1 ? [1 / high, 1 / low] : [low, high];
    const fold = rough(Math.max(r, 1 / r));
    const range = name ? `${name} ${rough(ends[0])} to ${rough(ends[1])}` : "";
    return { short: `${fold}× ${verdict}`, long: `${fold} times ${word}`, range };
  }
  const percent = (x) => Math.abs(x - 1) * 100;
  const ends = [percent(low), percent(high)].sort((a, b) => a - b);
  const range = name ? `${name} ${rough(ends[0])} to ${rough(ends[1])}\u00a0%` : "";
  return {
    short: `${rough(percent(r))}\u00a0% ${word}`,
    long: `${rough(percent(r))}\u00a0% ${word}`,
    range,
  };
}
