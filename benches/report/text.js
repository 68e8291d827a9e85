// SPDX-License-Identifier: BSL-1.0
// Text and numbers for people. Text from the result is data: it may hold anything, so what cannot
// be seen or changes the direction of what follows is written as an escape, and long text is cut.

/** What is shown where a number was not measured. */
const absent = "–";

/** Shows any value of the result as one line of at most `limit` characters. */
function clean(value, limit = 160) {
  if (value === null || value === undefined) return absent;
  if (typeof value === "number") return format_number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  const whole = typeof value === "string" ? value : json_text(value);
  // A code point is one or two units: twice the limit is enough to cut from, whatever the length.
  const line = escape_hidden(
    whole
      .slice(0, 2 * limit)
      .trim()
      .replace(/[\t\n\r]+/g, " "),
  );
  const points = Array.from(line);
  const shown =
    points.length > limit || whole.length > 2 * limit
      ? points.slice(0, limit - 1).join("") + "…"
      : line;
  // Right-to-left text is isolated so that it cannot reorder the figures beside it.
  return /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/u.test(shown) ? `\u2068${shown}\u2069` : shown;
}

/**
 * Makes controls, bidi overrides, zero-width characters and lone surrogates visible; thins out
 * piled-up accents.
 */
function escape_hidden(text) {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`)
    .replace(/(\p{M}{3})\p{M}+/gu, "$1");
}

function json_text(value) {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return "(a value that cannot be shown)";
  }
}

function is_number(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** Three significant digits, thousands apart by a thin space: 0.214, 12.3, 37 159. */
function format_number(value) {
  if (!is_number(value)) return absent;
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (size >= 999.5)
    return Math.round(value)
      .toString()
      .replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return String(Number(value.toPrecision(3)));
}

/** For axes, where room is short: 100, 1k, 20k, 1M; but 2 995 where ticks differ by little. */
function short_number(value) {
  const exact = Number(value.toPrecision(6));
  for (const [size, letter] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    const short = Number((value / size).toPrecision(3));
    if (Math.abs(value) >= size && Math.abs(short * size - exact) < 1e-9 * Math.abs(exact))
      return short + letter;
  }
  return Math.abs(exact) >= 1e3 && Number.isInteger(exact) ? format_number(exact) : String(exact);
}

const time_units = [
  ["s", 1e9],
  ["ms", 1e6],
  ["us", 1e3],
  ["ns", 1],
];

/** Splits "ns a poll" in a factor to nanoseconds and the rest; null when it is no unit of time. */
function split_unit(unit) {
  const found = /^(ns|us|µs|μs|ms|s)(?![\p{L}\p{N}])(.*)$/su.exec(
    typeof unit === "string" ? unit : "",
  );
  if (!found) return null;
  const name = found[1].replace(/[µμ]/u, "u");
  return {
    factor: time_units.find((u) => u[0] === name)[1],
    rest: clean(found[2], 40).replace(/^(?=[\p{L}])/u, " "),
  };
}

/**
 * A value with its unit, times in the unit that suits their size: 1.2 ms, 340 us. `rest` keeps what
 * "a poll" says.
 */
function format_value(value, unit, rest = true) {
  if (!is_number(value)) return absent;
  const time = split_unit(unit);
  if (time && value !== 0) {
    const ns = Number((value * time.factor).toPrecision(3));
    const [name, size] = time_units.find((u) => Math.abs(ns) >= u[1]) ?? ["ns", 1];
    return `${format_number(ns / size)}\u00a0${name}${rest ? time.rest : ""}`;
  }
  if (!unit || (time && !rest)) return format_number(value);
  const text = clean(unit, 40);
  return text.startsWith("1/")
    ? format_number(value) + text.slice(1)
    : `${format_number(value)}\u00a0${text}`;
}

/** A function that writes the ticks of an axis, all in the unit that suits the largest. */
function tick_writer(unit, largest, log) {
  const time = split_unit(unit);
  if (!time) return short_number;
  if (log) return (v) => format_value(v, unit, false);
  const [name, size] = time_units.find((u) => Math.abs(largest) * time.factor >= u[1]) ?? ["ns", 1];
  return (v) => (v === 0 ? "0" : `${short_number((v * time.factor) / size)} ${name}`);
}

/** "p99.9" from 0.999. */
function percentile_name(p) {
  return `p${Number((p * 100).toFixed(4))}`;
}

/** "a, b and c". */
function join_words(words) {
  return words.length < 2
    ? words.join("")
    : `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}

function plural(count, one, many = `${one}s`) {
  return `${format_number(count)} ${count === 1 ? one : many}`;
}
