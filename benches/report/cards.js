// SPDX-License-Identifier: BSL-1.0
// The headline figures at the top of the page.

/**
 * Three to five cards: one a scenario, then more variants; of too many, the best and, to be fair,
 * the worst. Where none of them shows a cost, the largest one is added.
 */
function headline_cards(scenarios) {
  const all = scenarios.flatMap((s) =>
    s.variants.filter((v) => v.headline).map((v, i) => ({ s, v, first: i === 0 })),
  );
  let chosen = all.filter((c) => c.first);
  if (chosen.length < 3) chosen = all.filter((c) => c.first || all.indexOf(c) < 4).slice(0, 4);
  if (chosen.length > 5) {
    const by_gain = chosen.slice().sort((a, b) => gain_of(b.v.headline) - gain_of(a.v.headline));
    chosen = chosen.filter(
      (c) => by_gain.indexOf(c) < 3 || by_gain.indexOf(c) >= by_gain.length - 2,
    );
  }
  const cost = chosen.length < 5 ? largest_cost(scenarios) : null;
  const told = (c) => c.s === cost?.s && c.v.headline.metric === cost.v.headline.metric;
  if (cost && !chosen.some((c) => told(c) || c.v.headline.verdict.kind === "worse"))
    chosen.push(cost);
  if (chosen.length === 0) return null;
  return el(
    "ul",
    { class: "cards" },
    chosen.map(({ s, v, title }) => headline_card(s, v, title ?? s.title)),
  );
}

/**
 * What it costs: of all metrics that are worse than stock's and clearly so, the one that is worse by
 * the largest factor. Headline figures are chosen for the benefit; this is the other side.
 */
function largest_cost(scenarios) {
  let worst = null;
  for (const s of scenarios) {
    for (const v of s.variants) {
      for (const metric of list(v.variant.metrics).map(record)) {
        const headline = comparison_of(v.variant, v.arms, metric);
        if (headline?.verdict.kind !== "worse") continue;
        if (worst && gain_of(headline) >= gain_of(worst.v.headline)) continue;
        worst = { s, v: { ...v, headline }, title: `The largest cost: ${s.title}` };
      }
    }
  }
  return worst;
}

/** How much better than stock, as a factor; what cannot be compared sorts with "no difference". */
function gain_of({ metric, ratio }) {
  if (!ratio || !(ratio.median > 0)) return 1;
  return metric.better === "higher" ? ratio.median : 1 / ratio.median;
}

function headline_card(s, v, title) {
  const { metric, own, stock, verdict, subject } = v.headline;
  const value = (kind, number, arm) =>
    el(
      "span",
      { class: kind },
      el("b", {}, row_value(number, metric.unit)),
      el("small", {}, arm.label),
    );
  const figure = [value("to", own, subject)];
  if (is_number(stock))
    figure.unshift(
      value("from", stock, v.headline.baseline),
      el("span", { class: "arrow", "aria-hidden": "true" }, "→"),
    );
  return el(
    "li",
    {},
    link_to(
      v.anchor,
      el(
        "span",
        { class: "card-title" },
        title,
        el(
          "small",
          {},
          [clean(metric.label ?? metric.name, 80), wide_unit(metric.unit)]
            .filter(Boolean)
            .join(", "),
          s.variants.length > 1 ? `; ${v.title}` : "",
        ),
      ),
      el("span", { class: "card-figure" }, figure),
      el(
        "span",
        { class: `verdict ${verdict.kind}` },
        verdict.short ? verdict_text(v.headline) : "",
      ),
    ),
  );
}

/** A small change also says how much it is: "+8 ns" tells a cost better than "44 % higher". */
function verdict_text({ metric, own, stock, ratio, verdict }) {
  const told = ["better", "worse", "neutral"].includes(verdict.kind);
  const small = told && own !== stock && ratio.median > 0.5 && ratio.median < 2;
  if (!small || !is_number(stock)) return verdict.short;
  const change = Number(Math.abs(own - stock).toPrecision(2));
  const sign = own > stock ? "+" : "−";
  return `${sign}${row_value(change, metric.unit)} (${verdict.short})`;
}
