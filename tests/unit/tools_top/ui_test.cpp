// SPDX-License-Identifier: BSL-1.0
#include "screen/ui.hpp"
// Included first, to check that the header is self-contained.

#include "made.hpp"
#include "support/sample_metrics.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <tuple>

namespace {

using namespace std::chrono_literals;
using namespace asio_pulse::top;  // NOLINT(google-build-using-namespace): what is tested

picture server() {
  const auto before = made::server(0);
  return make_picture(made::server(1), &before, 65s);
}

wish type(ui_state& ui, std::string_view keys, std::size_t contexts = 1) {
  wish last = wish::nothing;
  for (const char c : keys) last = press(ui, {key::text, std::string(1, c)}, contexts);
  return last;
}

std::string all_of(const std::vector<line>& lines) {
  std::string text;
  for (const line& l : lines) text += text_of(l) + '\n';
  return text;
}

std::string shown(const picture& p, ui_state& ui, size room = {24, 80},
                  charset set = charset::ascii) {
  history past;
  remember(past, p);
  return all_of(frame(p, past, ui, room, set));
}

bool shows(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST(top_ui, the_overview_names_the_bad_handler) {
  ui_state ui;
  const std::string text = shown(server(), ui);
  EXPECT_TRUE(shows(text, "server  pid 123  up 65.0s")) << text;
  EXPECT_TRUE(
      shows(text, "! long_poll: In build_report() at src/report.cpp:50: \"build_report\" has been"))
      << text;
  EXPECT_TRUE(shows(text, "STUCK 150ms: build_report")) << text;
  EXPECT_TRUE(shows(text, "queue delay")) << text;
  EXPECT_TRUE(shows(text, "src/report.cpp:42 build_report")) << text;
  EXPECT_TRUE(shows(text, "45.0%")) << text;
  EXPECT_TRUE(shows(text, "q quit")) << text;
}

TEST(top_ui, every_pane_fits_every_size) {
  ASSERT_TRUE(made::use_utf8());
  const auto before = made::hostile(0);
  for (const picture& p : {server(), make_picture(made::hostile(1), &before), picture{}}) {
    for (const charset set : {charset::ascii, charset::utf8}) {
      for (const size room : {size{1, 1}, size{8, 40}, size{24, 80}, size{25, 81}, size{50, 160}}) {
        for (int pane = 1; pane <= 7; ++pane) {
          for (const bool details : {false, true}) {
            ui_state ui;
            type(ui, std::to_string(pane));
            if (details) press(ui, {key::enter, {}}, 1);
            const auto lines = frame(p, {}, ui, room, set);
            ASSERT_EQ(lines.size(), room.rows);
            for (const line& l : lines) {
              EXPECT_LE(width_of(l), room.columns) << text_of(l);
              for (const char c : text_of(l)) {
                const auto byte = static_cast<unsigned char>(c);
                EXPECT_TRUE(byte >= 0x20 && byte != 0x7f) << static_cast<int>(byte);
                EXPECT_TRUE(set == charset::utf8 || byte < 0x80) << static_cast<int>(byte);
              }
              EXPECT_FALSE(shows(text_of(l), "\u202e"));
            }
          }
        }
      }
    }
  }
}

TEST(top_ui, panes_by_number_and_tab) {
  ui_state ui;
  type(ui, "3");
  EXPECT_EQ(ui.shown, pane::sites);
  press(ui, {key::tab, {}}, 1);
  EXPECT_EQ(ui.shown, pane::stalls);
  press(ui, {key::back_tab, {}}, 1);
  press(ui, {key::back_tab, {}}, 1);
  EXPECT_EQ(ui.shown, pane::tasks);
  EXPECT_TRUE(shows(shown(server(), ui), "[2 Tasks]"));
  type(ui, "1");
  press(ui, {key::back_tab, {}}, 1);
  EXPECT_EQ(ui.shown, pane::shards);
  press(ui, {key::back_tab, {}}, 1);
  EXPECT_EQ(ui.shown, pane::groups);
  press(ui, {key::back_tab, {}}, 1);
  EXPECT_EQ(ui.shown, pane::lints);
}

TEST(top_ui, groups_show_what_they_got_and_asked_for) {
  ui_state ui;
  type(ui, "g");
  const std::string text = shown(server(), ui);
  EXPECT_TRUE(shows(text, "[6 Groups]")) << text;
  EXPECT_TRUE(shows(text, "  GOTv  ASKED WEIGHT   DELAY  TASKS  ADMITTED/S  REFUSED/S GROUP"))
      << text;
  EXPECT_TRUE(shows(text, " 90.0%  50.0%    100  6.00ms     64          10        !73 flood"))
      << text;
  press(ui, {key::enter, {}}, 1);
  const std::string details = shown(server(), ui);
  EXPECT_TRUE(shows(details, "140 for its share, 6 because of overload (73/s)")) << details;
  EXPECT_TRUE(shows(details, "90.0% of what all groups used in the last 100ms")) << details;
}

TEST(top_ui, shards_show_their_load_and_what_has_moved_and_why) {
  auto now = made::server(1);
  now.contexts[0].shard = pulse_test::make_shard(3, 4, 950);
  now.contexts[0].shard.delay = std::chrono::milliseconds{7};
  now.contexts[0].shard.draining = false;
  ui_state ui;
  type(ui, "7");
  const std::string text = shown(make_picture(now, nullptr), ui);
  EXPECT_TRUE(shows(text, "[7 Shards]")) << text;
  EXPECT_TRUE(shows(text, "95%")) << text;
  EXPECT_TRUE(shows(text, "!7.00ms")) << text;
  EXPECT_TRUE(shows(text, "nothing_movable")) << text;
  EXPECT_TRUE(shows(text, "peer from 2, drain")) << text;
  press(ui, {key::enter, {}}, 1);
  const std::string details = shown(make_picture(now, nullptr), ui);
  EXPECT_TRUE(shows(details, "3 of 4")) << details;
  EXPECT_TRUE(shows(details, "95.0% of a CPU")) << details;
  EXPECT_TRUE(shows(details, "peer from 2, drain, 1.50s ago, in 40.0us")) << details;
  now.contexts[0].shard.draining = true;
  EXPECT_TRUE(shows(shown(make_picture(now, nullptr), ui), "nothing: it is drained"));
  now.contexts[0].shard = {};
  EXPECT_TRUE(shows(shown(make_picture(now, nullptr), ui), "No shards"));
}

TEST(top_ui, a_program_without_groups_is_told_so) {
  auto now = made::server(1);
  now.contexts[0].groups.clear();
  now.contexts[0].group_count = 0;
  ui_state ui;
  type(ui, "g");
  EXPECT_TRUE(shows(shown(make_picture(now, nullptr), ui), "No groups"));
}

TEST(top_ui, the_selected_group_is_known_by_its_path) {
  const picture p = server();
  ui_state ui;
  EXPECT_EQ(selected_group(p, ui), nullptr);  // in the overview
  type(ui, "g");
  ASSERT_NE(selected_group(p, ui), nullptr);
  EXPECT_EQ(selected_group(p, ui)->now.path, "flood");
  press(ui, {key::down, {}}, 1);
  frame(p, {}, ui, {}, charset::ascii);
  EXPECT_EQ(selected_group(p, ui)->now.path, "small");
  type(ui, "r");  // sorted the other way, and the selection follows
  EXPECT_EQ(selected_group(p, ui)->now.path, "small");
  ui.filter = "nothing";
  EXPECT_EQ(selected_group(p, ui), nullptr);
  EXPECT_EQ(selected_group(picture{}, ui), nullptr);
}

TEST(top_ui, the_overview_counts_requests_and_updates_where_there_are_some) {
  auto before = made::server(0);
  auto now = made::server(1);
  ui_state ui;
  EXPECT_FALSE(shows(shown(make_picture(now, &before), ui), "requests"));
  EXPECT_FALSE(shows(shown(make_picture(now, &before), ui), "updates"));
  asio_pulse::statistics& totals = now.contexts[0].totals;
  totals.requests_admitted = 500;
  totals.requests_refused_share = 30;
  totals.requests_refused_overload = 12;
  totals.updates = 2;
  const std::string text = shown(make_picture(now, &before), ui);
  EXPECT_TRUE(shows(text, "requests admitted 500/s")) << text;
  EXPECT_TRUE(shows(text, "refused 42 (+42/s)")) << text;
  EXPECT_TRUE(shows(text, "updates 2 (+2/s)")) << text;
}

TEST(top_ui, a_stall_opens_with_its_stack_and_who_is_to_blame) {
  ui_state ui;
  type(ui, "4");
  press(ui, {key::enter, {}}, 1);
  const std::string text = shown(server(), ui, {24, 80});
  EXPECT_TRUE(shows(text, ">> #1 build_report() at src/report.cpp:50")) << text;
  EXPECT_TRUE(shows(text, "   #0 crc32(char const*) at src/crc.cpp:8")) << text;
  EXPECT_TRUE(shows(text, "spinning")) << text;
  press(ui, {key::escape, {}}, 1);
  EXPECT_TRUE(shows(shown(server(), ui), "TO BLAME"));
}

TEST(top_ui, lints_come_with_their_advice) {
  ui_state ui;
  type(ui, "5");
  const std::string text = shown(server(), ui);
  EXPECT_TRUE(shows(text, "! long_poll")) << text;
  EXPECT_TRUE(shows(text, "> Put ASIO_PULSE_CHECKPOINT()")) << text;
  press(ui, {key::enter, {}}, 1);
  EXPECT_TRUE(shows(shown(server(), ui), "asio_pulse/docs/lints.md#long_poll"));
}

TEST(top_ui, the_selection_follows_its_row) {
  ui_state ui;
  const picture p = server();
  type(ui, "2");
  press(ui, {key::down, {}}, 1);
  frame(p, {}, ui, {}, charset::ascii);
  EXPECT_EQ(ui.current().key, "1");  // the task "session"
  type(ui, "r");                     // sorted the other way
  frame(p, {}, ui, {}, charset::ascii);
  EXPECT_EQ(ui.current().selected, 0U);
  press(ui, {key::end, {}}, 1);
  frame(p, {}, ui, {}, charset::ascii);
  EXPECT_EQ(ui.current().selected, 1U);
  press(ui, {key::enter, {}}, 1);
  EXPECT_TRUE(shows(shown(p, ui), "name          report"));
}

TEST(top_ui, long_lists_scroll_with_the_selection) {
  auto now = made::server(1);
  now.contexts[0].tasks.clear();
  for (std::uint64_t id = 1; id <= 100; ++id) {
    now.contexts[0].tasks.push_back({.id = id, .name = "task" + std::to_string(id)});
  }
  const picture p = make_picture(now, nullptr);
  ui_state ui;
  type(ui, "2");
  EXPECT_TRUE(shows(shown(p, ui), "task1\n"));
  EXPECT_TRUE(shows(shown(p, ui), "TASK")) << shown(p, ui);
  EXPECT_TRUE(shows(shown(p, ui), "1-19 of 100\n")) << shown(p, ui);
  for (int i = 0; i != 3; ++i) {
    press(ui, {key::page_down, {}}, 1);
    shown(p, ui);
  }
  const auto lines = frame(p, {}, ui, {}, charset::ascii);
  const auto selected =
      std::find_if(lines.begin(), lines.end(), [](const line& l) { return l.selected; });
  ASSERT_NE(selected, lines.end());
  EXPECT_TRUE(shows(text_of(*selected), "task" + std::to_string(ui.current().selected + 1)));
  press(ui, {key::end, {}}, 1);
  EXPECT_TRUE(shows(shown(p, ui), "task100"));
  EXPECT_TRUE(shows(shown(p, ui), "82-100 of 100\n")) << shown(p, ui);
  EXPECT_FALSE(shows(shown(p, ui), "task50\n"));
}

TEST(top_ui, the_filter_is_typed_and_left) {
  ui_state ui;
  type(ui, "2/sesq");  // q is a letter here
  EXPECT_TRUE(ui.typing);
  EXPECT_TRUE(shows(shown(server(), ui), "filter: sesq_"));
  press(ui, {key::backspace, {}}, 1);
  press(ui, {key::enter, {}}, 1);
  const std::string text = shown(server(), ui);
  EXPECT_TRUE(shows(text, "session")) << text;
  EXPECT_FALSE(shows(text, " report")) << text;
  EXPECT_TRUE(shows(text, "filter: ses (Esc: off)")) << text;
  press(ui, {key::escape, {}}, 1);
  EXPECT_EQ(ui.filter, "");
  type(ui, "/nothing");
  press(ui, {key::enter, {}}, 1);
  EXPECT_TRUE(shows(shown(server(), ui), "No row has that text."));
}

TEST(top_ui, what_keys_ask_for) {
  ui_state ui;
  EXPECT_EQ(type(ui, "q"), wish::quit);
  EXPECT_EQ(type(ui, "t"), wish::trace);
  EXPECT_EQ(type(ui, " "), wish::freeze);
  EXPECT_TRUE(ui.frozen);
  EXPECT_TRUE(shows(shown(server(), ui), "FROZEN"));
  EXPECT_EQ(type(ui, "f"), wish::freeze);
  EXPECT_FALSE(ui.frozen);
  EXPECT_EQ(type(ui, "+"), wish::new_interval);
  EXPECT_EQ(ui.interval, 2s);
  type(ui, "--");
  EXPECT_EQ(ui.interval, 500ms);
  type(ui, "----------");
  EXPECT_EQ(ui.interval, least_interval);
  type(ui, "++++++++++++");
  EXPECT_EQ(ui.interval, most_interval);
  ui.interval = 750ms;  // from the command line
  type(ui, "+");
  EXPECT_EQ(ui.interval, 1s);
  type(ui, "?");
  EXPECT_TRUE(shows(shown(server(), ui), "Keys and words"));
  EXPECT_EQ(type(ui, "x"), wish::nothing);
  EXPECT_FALSE(ui.help);
}

// ---- changes

std::string last_line(const std::string& screen) {
  const std::string text = screen.substr(0, screen.size() - 1);
  return text.substr(text.rfind('\n') + 1);
}

TEST(top_ui, a_change_is_asked_about_and_made_with_y) {
  using kind = asio_pulse::context_change::kind;
  const picture p = server();
  for (const auto& [letter, what, asks] :
       {std::tuple{"E", kind::enforce, "context \"main\": enforce? y: yes, other keys: no"},
        std::tuple{"S", kind::shadow, "context \"main\": only decide and report? y: yes"},
        std::tuple{"U", kind::undo, "context \"main\": undo the last change? y: yes"}}) {
    ui_state ui;
    ASSERT_EQ(type(ui, letter), wish::ask_change);
    begin_change(ui, p);
    EXPECT_TRUE(shows(last_line(shown(p, ui)), asks)) << last_line(shown(p, ui));
    EXPECT_EQ(type(ui, "y"), wish::change);
    EXPECT_EQ(ui.change.what.what, what);
    EXPECT_EQ(ui.change.context, p.contexts[0].now.number);
    EXPECT_TRUE(shows(last_line(shown(p, ui)), "q quit")) << "asked once";
  }
}

TEST(top_ui, any_other_key_leaves_the_process_as_it_is) {
  for (const key_press& other : {key_press{key::text, "n"}, key_press{key::text, "q"},
                                 key_press{key::enter, {}}, key_press{key::escape, {}}}) {
    ui_state ui;
    type(ui, "S");
    begin_change(ui, server());
    EXPECT_EQ(press(ui, other, 1), wish::nothing);
    EXPECT_TRUE(shows(last_line(shown(server(), ui)), "Nothing was changed."));
    EXPECT_EQ(type(ui, "y"), wish::nothing) << "the question is gone";
  }
}

TEST(top_ui, the_weight_of_the_selected_group_is_typed) {
  ui_state ui;
  const picture p = server();
  type(ui, "gW");
  begin_change(ui, p);
  EXPECT_TRUE(shows(last_line(shown(p, ui)), "weight of group \"flood\", now 100"))
      << last_line(shown(p, ui));
  press(ui, {key::enter, {}}, 1);  // no digit yet
  type(ui, "2x5q0007");            // only digits, and at most five
  press(ui, {key::backspace, {}}, 1);
  press(ui, {key::backspace, {}}, 1);
  EXPECT_TRUE(shows(last_line(shown(p, ui)), ": 250_")) << last_line(shown(p, ui));
  press(ui, {key::enter, {}}, 1);
  EXPECT_TRUE(shows(last_line(shown(p, ui)), "group \"flood\" weighs 250? y: yes"))
      << last_line(shown(p, ui));
  EXPECT_EQ(type(ui, "y"), wish::change);
  EXPECT_EQ(ui.change.what.group, "flood");
  EXPECT_EQ(ui.change.what.weight, 250U);

  type(ui, "W");
  begin_change(ui, p);
  press(ui, {key::escape, {}}, 1);
  EXPECT_TRUE(shows(last_line(shown(p, ui)), "q quit"));
}

TEST(top_ui, what_cannot_be_changed_is_told) {
  ui_state ui;
  type(ui, "W");  // in the overview
  begin_change(ui, server());
  EXPECT_TRUE(shows(last_line(shown(server(), ui)), "Select a group first (g)."));
  type(ui, "E");
  begin_change(ui, picture{});
  EXPECT_TRUE(shows(ui.message, "There is no context to change."));
  EXPECT_EQ(type(ui, "y"), wish::nothing);
  ui.ended = true;
  EXPECT_EQ(type(ui, "E"), wish::nothing);
}

TEST(top_ui, a_question_escapes_names) {
  const auto before = made::hostile(0);
  const picture p = make_picture(made::hostile(1), &before);
  ui_state ui;
  type(ui, "gW");
  begin_change(ui, p);
  for (const char c : last_line(shown(p, ui, {24, 300})))
    EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  type(ui, "1");
  press(ui, {key::enter, {}}, 1);
  for (const char c : last_line(shown(p, ui, {24, 300})))
    EXPECT_GE(static_cast<unsigned char>(c), 0x20);
}

TEST(top_ui, contexts_by_turns) {
  auto now = made::server(1);
  now.contexts.push_back(now.contexts[0]);
  now.contexts[1].number = 2;
  now.contexts[1].name = "second";
  now.contexts[1].shadow = true;
  const picture p = make_picture(now, nullptr);
  ui_state ui;
  EXPECT_TRUE(shows(shown(p, ui), "context 1/2 (c: next) main  enforcing"));
  type(ui, "c", 2);
  EXPECT_TRUE(shows(shown(p, ui), "context 2/2 (c: next) second  watching only"));
  type(ui, "c", 2);
  EXPECT_EQ(ui.context, 0U);
  type(ui, "c", 2);
  shown(server(), ui);  // it has gone
  EXPECT_EQ(ui.context, 0U);
}

TEST(top_ui, an_ended_process_stays_with_its_message) {
  ui_state ui;
  ui.ended = true;
  ui.message = "process 123 has ended";
  type(ui, "3");
  const std::string text = shown(server(), ui);
  EXPECT_TRUE(shows(text, "process 123 has ended  q: quit")) << text;
  EXPECT_TRUE(shows(text, "ENDED")) << text;
  EXPECT_TRUE(shows(text, "build_report")) << text;
}

}  // namespace
