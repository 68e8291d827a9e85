# SPDX-License-Identifier: BSL-1.0
"""Checks that check_options.py finds faults: the real tables with a fault in one place."""
import unittest

import check_options as check

DOCUMENT = (check.MODULE / "docs/options.md").read_text(encoding="utf-8")


class CheckOptionsTest(unittest.TestCase):
    def faults(self, old, new):
        self.assertIn(old, DOCUMENT)
        return "\n".join(check.all_faults(check.MODULE, DOCUMENT.replace(old, new, 1))[0])

    def test_finds_nothing_in_what_is_there(self):
        self.assertEqual(check.all_faults(check.MODULE, DOCUMENT)[0], [])

    def test_reads_a_structure(self):
        header = """
        /// Not: struct other {
struct some {
  /// Text; with a semicolon.
  std::chrono::nanoseconds a = std::chrono::milliseconds{5};  ///< five
  std::optional<timing::clock_kind> b = std::nullopt;
  std::size_t c = std::size_t{2} << 20;
  asio_pulse::mode d = asio_pulse::mode::on;
  std::function<void(const report&)> e = {};
  task_options f = {.name = "x", .budget = std::chrono::nanoseconds{0}};
  std::string g{};
  bool operator==(const some&) const = default;
};
"""
        self.assertEqual(check.members(header, "some"), {
            "a": ("duration", "5 ms"), "b": ("clock_kind", "{}"), "c": ("number", "2097152"),
            "d": ("mode", "on"), "e": ("callback", "{}"),
            "f": ("task_options", '{.name = "x", .budget = 0}'), "g": ("text", "{}")})

    def test_refuses_a_member_without_a_default(self):
        with self.assertRaisesRegex(ValueError, "without a default"):
            check.members("struct some {\n  int a;\n};\n", "some")

    def test_finds_what_is_wrong(self):
        for old, new, text in (
                ("| `quantum` | duration", "| `quantums` | duration", "options.quantum is not described"),
                ("| `quantum` | duration", "| `quantums` | duration", "there is no such option"),
                ("`500 us`", "`600 us`", "options.quantum: the default is `500 us`"),
                ("| `shadow` | bool", "| `shadow` | number", "options.shadow: the type is bool"),
                ("`idle` SCHED_IDLE", "SCHED_IDLE", "does not have `idle`"),
                ("`hybrid`", "", "does not have `hybrid`"),
                ("| `burst` | duration | `0` | zero: one budget; from 1 us, refilled within 600 s",
                 "| `burst` | duration | `0` | ", "task_options.burst lacks its range"),
                ("| measured: with `budget` |", "| rumour |", "task_options.per: the origin must begin"),
                ("## tier_policy", "## tier policies", "there is no section tier_policy"),
                ("| `ASIO_PULSE_HINTS` |", "| `ASIO_PULSE_HINT` |", "ASIO_PULSE_HINTS is not described")):
            with self.subTest(text):
                self.assertIn(text, self.faults(old, new))


if __name__ == "__main__":
    unittest.main()
