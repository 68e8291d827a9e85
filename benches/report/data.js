// SPDX-License-Identifier: BSL-1.0
// Reading the result: every field may be missing or of another type, so nothing is used unseen.

function list(value) {
  return Array.isArray(value) ? value : [];
}

function record(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

/** The own members of an object as pairs; an arm may be called "constructor". */
function members(value) {
  return Object.entries(record(value));
}

function member(value, name) {
  const object = record(value);
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** A name as a string, so that it can be compared; what is not text gets a readable stand-in. */
function name_of(value, fallback) {
  return typeof value === "string" && value !== "" ? value : fallback;
}

/** The arms of a variant, baseline first: those declared, then those that only the data mention. */
function arms_of(variant) {
  const found = new Map();
  for (const arm of list(variant.arms).map(record)) {
    const name = name_of(arm.name, null);
    if (name !== null && !found.has(name))
      found.set(name, { name, label: clean(arm.label ?? name, 32) });
  }
  for (const part of ["metrics", "distributions", "timelines", "series"]) {
    for (const item of list(variant[part])) {
      for (const [name] of members(record(item).arms))
        if (!found.has(name)) found.set(name, { name, label: clean(name, 32) });
    }
  }
  const arms = Array.from(found.values());
  for (const arm of arms) arm.style = arm_style(arm.name);
  return arms;
}

/** The arm that the others are compared with, and the one the page is about. */
function baseline_of(arms) {
  return arms.find((a) => a.name === "stock") ?? null;
}

function subject_of(arms) {
  return arms.find((a) => a.name === "pulse") ?? arms.find((a) => a.name !== "stock") ?? null;
}

/** The numbers of a list as an ascending Float64Array; sorts only when it must. */
function ascending_numbers(values) {
  let good = true;
  for (let i = 0; i < values.length && good; ++i)
    good = is_number(values[i]) && (i === 0 || values[i - 1] <= values[i]);
  return good ? Float64Array.from(values) : Float64Array.from(values.filter(is_number)).sort();
}

/**
 * One arm of a distribution: { count, min, max, quantile(p) }, from all samples or from buckets;
 * null when empty.
 */
function distribution_of(arm) {
  const given = record(arm);
  const samples = ascending_numbers(list(given.samples));
  if (samples.length > 0) {
    const n = samples.length;
    return {
      count: n,
      min: samples[0],
      max: samples[n - 1],
      mean: given.mean,
      quantile: (p) => samples[nearest_rank(p, n)],
    };
  }
  return bucketed(given);
}

/** The nearest rank: the smallest sample that at least p of all samples do not exceed. */
function nearest_rank(p, count) {
  return Math.min(count - 1, Math.max(0, Math.ceil(p * count - 1e-9) - 1));
}

function bucketed(given) {
  const buckets = list(given.buckets).filter(
    (b) => Array.isArray(b) && is_number(b[0]) && is_number(b[1]) && b[1] > 0,
  );
  if (buckets.length === 0) return null;
  buckets.sort((a, b) => a[0] - b[0]);
  const upto = [];
  let count = 0;
  for (const bucket of buckets) upto.push((count += bucket[1]));
  const max = is_number(given.max) ? given.max : buckets[buckets.length - 1][0];
  const quantile = (p) => {
    const rank = nearest_rank(p, count) + 1;
    let low = 0;
    for (let high = upto.length - 1; low < high;) {
      const middle = (low + high) >> 1;
      if (upto[middle] < rank) low = middle + 1;
      else high = middle;
    }
    return Math.min(buckets[low][0], max);
  };
  return {
    count,
    min: is_number(given.min) ? given.min : buckets[0][0],
    max,
    mean: given.mean,
    quantile,
  };
}

/**
 * Points [t, value] thinned to the lowest and the highest of each of `columns` steps, so that no
 * peak is lost.
 */
function thin(points, first, last, columns) {
  if (points.length <= 2 * columns) return points;
  const step = (last - first) / columns || 1;
  const result = [];
  let column = -1;
  let low = null;
  let high = null;
  const flush = () => {
    if (low === null) return;
    result.push(...(low === high ? [low] : low[0] <= high[0] ? [low, high] : [high, low]));
  };
  for (const point of points) {
    const own = Math.floor((point[0] - first) / step);
    if (own !== column) {
      flush();
      column = own;
      low = high = point;
    } else if (point[1] < low[1]) low = point;
    else if (point[1] > high[1]) high = point;
  }
  flush();
  return result;
}

/**
 * The extremes by a loop: spreading a large array over the arguments of Math.min overflows the
 * stack.
 */
function min_of(values) {
  return values.reduce((a, b) => (b < a ? b : a), Infinity);
}

function max_of(values) {
  return values.reduce((a, b) => (b > a ? b : a), -Infinity);
}
