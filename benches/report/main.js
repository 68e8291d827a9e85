// SPDX-License-Identifier: BSL-1.0
// The page draws its charts itself, as SVG. Chart.js (Debian's libjs-chart.js, 200 kB) and uPlot draw
// on a canvas: check.py, which reads the page's elements, could not see what was drawn, and a page on
// paper would be scaled pixels. Most of this page is rows of medians with their intervals and
// repetitions, and spans of events over time, which neither draws without a plug-in or code like
// ours. They would save the axes (axes.js). This is what their documentation says; no chart was
// rewritten with either to compare.
//
// Starts the page: reads the result, refuses what it cannot read in one sentence, builds the
// sections and follows the address.

const supported_schema = "asio-pulse-bench/1";

/** { result } or { error }, a sentence that says what is wrong. */
function parse_result(text) {
  if (text.trim() === "" || text.trim().startsWith("/*"))
    return {
      error: "This page holds no result: it is the empty template. pulse_bench fills it in.",
    };
  let result;
  try {
    result = JSON.parse(text);
  } catch (error) {
    return { error: `The result in this page is not valid JSON: ${clean(error.message, 200)}` };
  }
  if (Object.keys(record(result)).length === 0)
    return { error: "The result in this page is not a JSON object with members." };
  if (result.schema !== supported_schema) {
    const found =
      result.schema === undefined ? "no schema" : `the schema "${clean(result.schema, 80)}"`;
    return {
      error:
        `The result in this page has ${found}; this report reads "${supported_schema}". ` +
        "Its numbers can be had as JSON above.",
    };
  }
  return { result };
}

function start() {
  const text = document.getElementById("result").textContent;
  add_actions(text);
  const content = document.getElementById("content");
  const { result, error } = parse_result(text);
  if (error) {
    content.append(
      el("h1", {}, "Benchmark report"),
      el("p", { class: "notice bad", role: "alert" }, error),
    );
    return;
  }
  const scenarios = read_result(result);
  content.append(
    guarded("The summary could not be shown", () => summary_section(result, scenarios)),
  );
  if (scenarios.length === 0)
    content.append(
      el("p", { class: "notice" }, "The result holds no scenarios: nothing was measured."),
    );
  if (scenarios.length > 1)
    document
      .querySelector(".bar")
      .insertBefore(contents_of(scenarios), document.getElementById("actions"));
  for (const entry of scenarios)
    content.append(guarded("This scenario could not be shown", () => scenario_section(entry)));
  document
    .getElementById("foot")
    .append(
      "Intervals are 95\u00a0% confidence intervals of the median; " +
        "of fewer than six repetitions, which cannot give one, their range; " +
        "ratios are taken pair by pair, repetition by repetition. ",
      `Made from the data in this page (${supported_schema}); nothing is fetched.`,
    );
  draw_places();
  follow_width();
  follow_address(scenarios);
}

function contents_of(scenarios) {
  return el(
    "nav",
    { "aria-label": "Scenarios" },
    scenarios.map((s) => link_to(s.anchor, s.title)),
  );
}

/** Redraws when the width has changed, once a frame at most. */
function follow_width() {
  let asked = false;
  new ResizeObserver(() => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw_places();
    });
  }).observe(document.getElementById("content"));
  addEventListener("beforeprint", () => draw_places(paper_width));
  addEventListener("afterprint", () => draw_places());
}

/** An address ends in #scenario or #scenario/variant; what is unknown leaves the page as it is. */
function follow_address(scenarios) {
  const go = () => {
    let wanted = location.hash.slice(1);
    try {
      wanted = decodeURIComponent(wanted);
    } catch {
      return;
    }
    for (const entry of scenarios) {
      const index = entry.variants.findIndex((v) => v.anchor === wanted);
      if (entry.anchor !== wanted && index < 0) continue;
      if (index >= 0) {
        select_variant(entry, index, false);
        draw_places();
      }
      entry.heading?.scrollIntoView({ behavior: "instant" });
      entry.heading?.focus({ preventScroll: true });
      return;
    }
  };
  addEventListener("hashchange", go);
  if (location.hash) go();
}

function add_actions(text) {
  const copy = el("button", { type: "button", class: "quiet" }, "Copy JSON");
  copy.addEventListener("click", async () => {
    copy.textContent = (await copy_text(text)) ? "Copied" : "Not allowed here";
    setTimeout(() => {
      copy.textContent = "Copy JSON";
    }, 1600);
  });
  const download = el(
    "button",
    { type: "button", class: "quiet", title: "Download the result as JSON" },
    "Download",
  );
  download.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    el("a", { href: address, download: "asio-pulse-bench.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  const theme = el(
    "button",
    { type: "button", class: "quiet", "aria-label": "Switch between the light and the dark page" },
    "Light / dark",
  );
  theme.addEventListener("click", () => set_theme(is_dark() ? "light" : "dark", true));
  document.getElementById("actions").append(copy, download, theme);
}

/**
 * The clipboard's own interface is missing from some browsers for local files; the old way works
 * there.
 */
async function copy_text(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function is_dark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function set_theme(name, keep) {
  if (name !== "light" && name !== "dark") return;
  document.documentElement.dataset.theme = name;
  try {
    if (keep) localStorage.setItem("asio-pulse-theme", name);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
}

/**
 * Before anything is drawn: ?theme= in the address, else what was chosen last time, else the
 * system's.
 */
function first_theme() {
  let kept = null;
  try {
    kept = localStorage.getItem("asio-pulse-theme");
  } catch {
    // As above.
  }
  set_theme(new URLSearchParams(location.search).get("theme") ?? kept, false);
}

first_theme();
document.addEventListener("DOMContentLoaded", start);
