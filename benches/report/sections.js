// SPDX-License-Identifier: BSL-1.0
// One section a scenario: its question, the answer in words, and a tab a variant with its figures.

function scenario_section(entry) {
  const { scenario, title, variants } = entry;
  const section = el("section", { class: "scenario" });
  const heading = el("h2", { tabindex: "-1" }, link_to(entry.anchor, title));
  entry.heading = heading;
  section.append(heading);
  if (scenario.question)
    section.append(el("p", { class: "question" }, clean(scenario.question, 400)));
  const answer = scenario_answer(variants);
  if (answer) section.append(el("p", { class: "across" }, answer));
  if (variants.length === 0)
    section.append(
      el(
        "p",
        { class: "notice" },
        "This scenario has no variants in the result: it was not run, or it failed.",
      ),
    );
  for (const v of variants)
    v.panel = guarded("This variant could not be shown", () =>
      variant_panel(v, variants.length > 1),
    );
  if (variants.length > 1) section.append(tab_list(entry));
  section.append(...variants.map((v) => v.panel));
  section.append(...after_parts(scenario));
  return section;
}

/** What holds over all variants, so that nobody has to open every tab to learn it. */
function scenario_answer(variants) {
  const known = variants
    .map((v) => v.headline)
    .filter((h) => h && h.ratio && ["better", "worse", "same"].includes(h.verdict.kind));
  if (variants.length < 2 || known.length < 2) return null;
  const count = (kind) => known.filter((h) => h.verdict.kind === kind).length;
  const gains = known.filter((h) => h.verdict.kind === "better").map(gain_of);
  const range =
    gains.length > 1 && max_of(gains) >= 2
      ? ` (by a factor of ${rough(min_of(gains))} to ${rough(max_of(gains))})`
      : "";
  const parts = [
    ["better", `better${range}`],
    ["same", "not clearly different"],
    ["worse", "worse"],
  ]
    .filter(([kind]) => count(kind) > 0)
    .map(
      ([kind, word]) => `${word} in ${count(kind) === known.length ? "all " : ""}${count(kind)}`,
    );
  const [{ subject, baseline }] = known;
  const whole = parts.length === 1 ? "" : ` of the ${plural(known.length, "variant")} below`;
  const noun = parts.length === 1 ? " variants" : "";
  const against = `${subject.label} against ${baseline?.label ?? "stock"}`;
  return `${against}: ${join_words(parts)}${noun}${whole}.`;
}

/** The answer of one variant, from its headline metric. */
function variant_answer({ headline, arms }) {
  if (!headline) return null;
  const { metric, subject, baseline, own, stock, verdict, median } = headline;
  const value = (v) => el("b", {}, format_value(v, metric.unit));
  const label = capital(clean(metric.label ?? metric.name, 100));
  const parts = is_number(stock)
    ? [
        `${label}: `,
        value(stock),
        ` with ${baseline.label}, `,
        value(own),
        ` with ${subject.label}`,
      ]
    : [`${label}: `, value(own), ` with ${subject.label}`];
  if (verdict.long)
    parts.push(": ", el("span", { class: `verdict ${verdict.kind}` }, verdict.long));
  if (verdict.range) parts.push(` (${verdict.range})`);
  parts.push(".");
  const others = arms.filter((a) => a !== subject && a !== baseline && is_number(median(a)));
  const told = (arm) => `${format_value(median(arm), metric.unit)} (${arm.label})`;
  if (others.length > 0) parts.push(` Beside them: ${join_words(others.map(told))}.`);
  return el("p", { class: "answer" }, parts);
}

function variant_panel(v, has_tabs) {
  const { variant, arms } = v;
  const panel = el("div", { class: "panel" });
  if (has_tabs) panel.append(el("h3", { class: "panel-title" }, capital(v.title)));
  const answer = variant_answer(v);
  if (answer) panel.append(answer);
  panel.append(verification_line(variant));
  const figures = [];
  const add = (items, make) =>
    list(items)
      .map(record)
      .forEach((item) =>
        figures.push(guarded("This figure could not be read", () => make(item, arms))),
      );
  add(variant.distributions, distribution_figure);
  add(variant.timelines, timeline_figure);
  add(variant.series, series_figure);
  panel.append(...figures, ...metric_parts(list(variant.metrics).map(record), arms));
  if (figures.length === 0 && list(variant.metrics).length === 0)
    panel.append(el("p", { class: "notice" }, "Nothing was measured here."));
  panel.append(...parameter_parts(variant.parameters));
  return panel;
}

/** Metrics that can be better or worse come first, then counters; what never varied is one line. */
function metric_parts(metrics, arms) {
  if (metrics.length === 0) return [];
  const judged = (m) => m.better === "lower" || m.better === "higher";
  const same = metrics.filter((m) => !judged(m) && constant_of(m, arms) !== undefined);
  const drawn = metrics.filter((m) => !same.includes(m));
  drawn.sort((a, b) => judged(b) - judged(a));
  const figures = drawn.map((m) =>
    el(
      "div",
      { class: "half" },
      guarded("This metric could not be read", () => metric_figure(m, arms)),
    ),
  );
  const told = (m) =>
    `${clean(m.label ?? m.name, 60)} ${format_value(constant_of(m, arms), m.unit)}`;
  return [
    el(
      "div",
      { class: "metrics" },
      el("h3", {}, "Every repetition"),
      el("p", { class: "hint" }, repetition_hint(drawn, arms)),
      el("div", { class: "grid-2" }, figures),
      same.length > 0
        ? el("p", { class: "hint same" }, `Without any spread: ${join_words(same.map(told))}.`)
        : null,
    ),
    el(
      "details",
      {},
      el("summary", {}, "Numbers of all metrics"),
      guarded("The numbers could not be shown", () => metrics_table(metrics, arms)),
    ),
  ];
}

function repetition_hint(metrics, arms) {
  const counts = metrics
    .flatMap((m) => arms_with(m, arms, metric_arm))
    .map((d) => d.data.samples.length);
  const few = counts.some((n) => n > 0 && n < 6);
  const band = few ? "their range" : "its 95\u00a0% confidence interval";
  return (
    "A dot a repetition, in their order from top to bottom; " +
    `the line is the median, the band ${band}.`
  );
}

function verification_line(variant) {
  const text = variant.verification ? clean(variant.verification, 400) : "";
  if (variant.verified === true)
    return el(
      "p",
      { class: "verified good" },
      check_mark(true),
      `Verified${text ? `: ${text}` : ""}`,
    );
  const failed = variant.verified === false;
  const what = failed
    ? "Verification failed: do not rely on these figures"
    : "The result does not say whether this run verified its work";
  return el(
    "p",
    { class: `verified ${failed ? "bad" : ""}` },
    failed ? check_mark(false) : null,
    `${what}${text ? `: ${text}` : ""}`,
  );
}

function parameter_parts(parameters) {
  const pairs = members(parameters).slice(0, 60);
  if (pairs.length === 0) return [];
  return [
    el(
      "dl",
      { class: "parameters", "aria-label": "Parameters" },
      pairs.map(([k, v]) => el("div", {}, el("dt", {}, clean(k, 60)), el("dd", {}, clean(v, 120)))),
    ),
  ];
}

/** Targets and notes stand below the variants: they are about the scenario. */
function after_parts(scenario) {
  const targets = list(scenario.targets).map(record);
  const notes = list(scenario.notes)
    .slice(0, 40)
    .filter((n) => typeof n === "string" && n !== "");
  const parts = [];
  if (targets.length > 0) {
    const rows = targets.map((t) => [
      clean(t.text, 200),
      target_value(t),
      `${t.better === "higher" ? "≥" : "≤"} ${format_number(t.limit)}`,
      target_state(t.met),
    ]);
    parts.push(
      el("h3", {}, "Targets"),
      table("Targets", ["", "measured", "target", ""], rows, { class: "targets" }),
    );
  }
  if (notes.length > 0)
    parts.push(
      el("h3", {}, "Notes"),
      el(
        "ul",
        { class: "notes" },
        notes.map((n) => el("li", {}, clean(n, 1000))),
      ),
    );
  return parts;
}

/** Beside "≤ 1.02", a "1.02" that did not meet it would look like a mistake. */
function target_value({ value, limit }) {
  const text = format_number(value);
  const alike = is_number(value) && value !== limit && text === format_number(limit);
  return alike ? String(Number(value.toPrecision(5))) : text;
}

function target_state(met) {
  if (typeof met !== "boolean") return absent;
  return el("span", { class: met ? "good" : "bad" }, check_mark(met), met ? "met" : "not met");
}

// Tabs after the pattern of the WAI: one stop for the tab key, arrows between the tabs.

let next_id = 0;

function tab_list(entry) {
  const tabs = entry.variants.map((v, i) => {
    const id = ++next_id;
    v.tab = el(
      "button",
      {
        type: "button",
        role: "tab",
        id: `tab-${id}`,
        "aria-controls": `panel-${id}`,
        "aria-selected": "false",
        tabindex: "-1",
      },
      capital(v.title),
    );
    fill_in(v.panel, { role: "tabpanel", id: `panel-${id}`, "aria-labelledby": `tab-${id}` }, []);
    v.tab.addEventListener("click", () => select_variant(entry, i, true));
    return v.tab;
  });
  const bar = el(
    "div",
    { class: "tabs", role: "tablist", "aria-label": `Variants of ${entry.title}` },
    tabs,
  );
  bar.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[
      event.key
    ];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    select_variant(entry, (next + tabs.length) % tabs.length, true);
    document.activeElement.blur();
    tabs[(next + tabs.length) % tabs.length].focus();
  });
  select_variant(entry, 0, false);
  return bar;
}

/**
 * Shows one variant; `remember` puts it in the address, without a jump and without filling the
 * history.
 */
function select_variant(entry, index, remember) {
  entry.variants.forEach((v, i) => {
    v.panel.hidden = i !== index;
    v.tab?.setAttribute("aria-selected", String(i === index));
    v.tab?.setAttribute("tabindex", i === index ? "0" : "-1");
  });
  hide_tip();
  if (!remember) return;
  draw_places();
  try {
    history.replaceState(null, "", link_to(entry.variants[index].anchor).href);
  } catch {
    // An address that cannot be changed (some file viewers) costs the link, not the page.
  }
}
