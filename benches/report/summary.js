// SPDX-License-Identifier: BSL-1.0
// The top of the page: what was measured, what came out, on which machine, and how far to trust it.

/** Every variant of the result with what the summary needs to know about it. */
function read_result(result) {
  const scenarios = list(result.scenarios)
    .map(record)
    .map((scenario, i) => {
      const name = name_of(scenario.name, `scenario ${i + 1}`);
      const variants = list(scenario.variants)
        .map(record)
        .map((variant, j) => {
          const arms = arms_of(variant);
          const variant_name = name_of(variant.name, `variant ${j + 1}`);
          return {
            variant,
            arms,
            name: variant_name,
            title: clean(variant.title ?? variant_name, 120),
            headline: headline_of(variant, arms),
          };
        });
      return { scenario, name, title: clean(scenario.title ?? name, 120), variants };
    });
  name_anchors(scenarios);
  return scenarios;
}

/**
 * Anchors are the names, so that a link survives a new run; names that are long, doubled or hold
 * what cannot be seen get their position instead.
 */
function name_anchors(scenarios) {
  const taken = new Set(["content"]);
  const anchor = (wanted, fallback) => {
    const name =
      wanted.length <= 80 && escape_hidden(wanted) === wanted && !taken.has(wanted)
        ? wanted
        : fallback;
    taken.add(name);
    return name;
  };
  scenarios.forEach((s, i) => {
    s.anchor = anchor(s.name, `scenario-${i + 1}`);
    s.variants.forEach((v, j) => {
      v.anchor = anchor(`${s.name}/${v.name}`, `scenario-${i + 1}/variant-${j + 1}`);
    });
  });
}

function link_to(anchor, ...children) {
  return el(
    "a",
    {
      href: `#${encodeURIComponent(anchor).replace(/%2F/g, "/")}`,
    },
    ...children,
  );
}

function summary_section(result, scenarios) {
  return el(
    "section",
    { class: "summary" },
    el("h1", {}, "What asio-pulse does for a Boost.Asio program, and what it costs"),
    el(
      "p",
      { class: "lead" },
      "asio-pulse is a plugin for Boost.Asio that takes the CPU back from handlers which run for " +
        "too long. ",
      summary_sentence(result, scenarios),
    ),
    noise_notice(record(result.machine)),
    checks_line(scenarios),
    headline_cards(scenarios),
    overview_table(scenarios),
    machine_facts(result),
  );
}

function summary_sentence(result, scenarios) {
  const labels = new Map();
  for (const s of scenarios)
    for (const v of s.variants)
      for (const a of v.arms) if (known_names.has(a.name)) labels.set(a.name, a.label);
  const peers = ["tokio", "go", "erlang"].filter((n) => labels.has(n)).map((n) => labels.get(n));
  const stand = peers.length === 1 ? "stands" : "stand";
  const beside =
    peers.length > 0
      ? `; ${join_words(peers)} ${stand} beside them where the task is the same`
      : "";
  const count = scenarios.reduce((n, s) => n + s.variants.length, 0);
  const variants = count > scenarios.length ? ` in ${plural(count, "variant")}` : "";
  const what = `${plural(scenarios.length, "scenario")}${variants}`;
  const how = "each with Boost.Asio as it is and with asio-pulse, by turns on one machine";
  const time = is_number(result.duration_s) ? ` in ${format_value(result.duration_s, "s")}` : "";
  return `Measured here: ${what}, ${how}${time}${beside}.`;
}

const known_names = new Set(["stock", "pulse", "tokio", "go", "erlang"]);

function noise_notice(machine) {
  const reasons = list(machine.noise)
    .slice(0, 10)
    .map((r) => clean(r, 300));
  if (machine.noisy !== true) return null;
  return el(
    "div",
    { class: "notice warn", role: "note" },
    el("strong", {}, "The machine was not quiet while this was measured. "),
    "Small differences mean little here; look at the spread before the medians.",
    reasons.length > 0
      ? el(
          "ul",
          {},
          reasons.map((r) => el("li", {}, r)),
        )
      : null,
  );
}

/** Verification and targets in one line. */
function checks_line(scenarios) {
  const variants = scenarios.flatMap((s) => s.variants);
  const verified = variants.filter((v) => v.variant.verified === true).length;
  const targets = scenarios
    .flatMap((s) => list(s.scenario.targets).map(record))
    .filter((t) => typeof t.met === "boolean");
  const met = targets.filter((t) => t.met).length;
  const item = (good, text) => el("li", { class: good ? "good" : "bad" }, check_mark(good), text);
  return el(
    "ul",
    { class: "checks" },
    variants.length > 0
      ? item(
          verified === variants.length,
          `${verified} of ${plural(variants.length, "variant")} verified the work they did`,
        )
      : null,
    targets.length > 0
      ? item(met === targets.length, `${met} of ${plural(targets.length, "target")} met`)
      : null,
  );
}

function check_mark(good) {
  return el("span", { class: "check", "aria-hidden": "true" }, good ? "✓" : "✗");
}

/** Every variant's headline figure for every arm. */
function overview_table(scenarios) {
  const names = new Map();
  const rows = scenarios.flatMap((s) =>
    s.variants.filter((v) => v.headline).map((v) => ({ s, v })),
  );
  for (const { v } of rows)
    for (const a of v.arms)
      if (is_number(v.headline.median(a)) && !names.has(a.name)) names.set(a.name, a);
  if (rows.length < 2) return null;
  const arms = Array.from(names.values()).sort((a, b) => rank_of(a) - rank_of(b));
  const cells = rows.map(({ s, v }) => [
    el(
      "span",
      { class: "two-lines" },
      link_to(v.anchor, s.variants.length > 1 ? `${s.title}: ${v.title}` : s.title),
      el("small", {}, clean(v.headline.metric.label ?? v.headline.metric.name, 80)),
    ),
    ...with_verdict(
      arms,
      (a) => format_value(v.headline.median(a), v.headline.metric.unit, false),
      el(
        "span",
        { class: `verdict ${v.headline.verdict.kind}` },
        v.headline.verdict.short || absent,
      ),
    ),
  ]);
  return el(
    "div",
    { class: "overview" },
    el("h2", { class: "minor" }, "At a glance"),
    table(
      "Headline figures of every variant",
      ["", ...with_verdict(arms, arm_label, "against stock")],
      cells,
    ),
  );
}

/** The verdict stands right of the arm that it judges, before the peers. */
function with_verdict(arms, write, verdict) {
  const subject = subject_of(arms);
  return arms.flatMap((arm) => (arm === subject ? [write(arm), verdict] : [write(arm)]));
}

function rank_of(arm) {
  const rank = Array.from(known_names).indexOf(arm.name);
  return rank < 0 ? known_names.size : rank;
}

function machine_facts(result) {
  const m = record(result.machine);
  const dirty = m.dirty === true ? ", with changes that are not committed" : "";
  const facts = [
    [
      "CPU",
      join_facts([
        m.cpu,
        is_number(m.cpus) ? plural(m.cpus, "CPU") : null,
        m.virtual === true ? "a virtual machine" : null,
      ]),
    ],
    ["Kernel", join_facts([m.kernel])],
    ["Compiler", join_facts([m.compiler])],
    ["Flags", join_facts([m.flags])],
    ["Boost", join_facts([m.boost])],
    ["Commit", m.commit ? clean(m.commit, 60) + dirty : ""],
    [
      "Load average",
      is_number(m.load_before)
        ? `${format_number(m.load_before)} before, ${format_number(m.load_after)} after`
        : "",
    ],
    [
      "Stolen by the host",
      is_number(m.steal_percent) ? `${format_number(m.steal_percent)} % of the time` : "",
    ],
    ["Measured", join_facts([readable_time(result.created)])],
  ].filter(([, value]) => value !== "");
  return el(
    "div",
    { class: "machine" },
    el("h2", { class: "minor" }, "Measured on"),
    facts.length > 0
      ? el(
          "dl",
          { class: "facts" },
          facts.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v))),
        )
      : el("p", { class: "hint" }, "The result does not say on which machine."),
    m.command
      ? el("pre", { class: "command", tabindex: "0" }, el("code", {}, clean(m.command, 600)))
      : null,
  );
}

/** "2026-11-21 22:50 UTC" from ISO 8601; anything else as it is. */
function readable_time(created) {
  const found = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?Z$/.exec(
    typeof created === "string" ? created : "",
  );
  return found ? `${found[1]} ${found[2]} UTC` : created;
}

function join_facts(values) {
  return values
    .filter((v) => v !== null && v !== undefined && v !== "")
    .map((v) => clean(v, 120))
    .join(", ");
}
