// SPDX-License-Identifier: BSL-1.0
//
// SQLite's amalgamation: a database in memory, filled, indexed, joined, grouped and searched; and statements of
// which each is parsed anew.
#include "program.hpp"

#include <sqlite3.h>

#include <string>

namespace {

void fail(sqlite3* db) {
  std::fprintf(stderr, "%s\n", sqlite3_errmsg(db));
  std::exit(1);
}

void run(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail(db);
}

/// The sum of all integers that a statement returns.
std::uint64_t sum_of(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* s = nullptr;
  if (sqlite3_prepare_v2(db, sql.c_str(), -1, &s, nullptr) != SQLITE_OK) fail(db);
  std::uint64_t sum = 0;
  while (sqlite3_step(s) == SQLITE_ROW) {
    for (int i = 0; i < sqlite3_column_count(s); ++i)
      sum += static_cast<std::uint64_t>(sqlite3_column_int64(s, i));
  }
  if (sqlite3_finalize(s) != SQLITE_OK) fail(db);
  return sum;
}

}  // namespace

std::uint64_t work() {
  sqlite3* db = nullptr;
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) fail(db);
  run(db, "create table item(id integer primary key, owner int, price int, name text); begin");
  sqlite3_stmt* insert = nullptr;
  if (sqlite3_prepare_v2(db, "insert into item(owner, price, name) values(?, ?, ?)", -1, &insert,
                         nullptr) != SQLITE_OK)
    fail(db);
  std::uint32_t x = 1;
  const auto next = [&x] { return x = x * 1664525 + 1013904223, x >> 8; };
  for (int i = 0; i < 8000; ++i) {
    const std::string name = "name " + std::to_string(next() % 5000);
    sqlite3_bind_int(insert, 1, static_cast<int>(next() % 200));
    sqlite3_bind_int(insert, 2, static_cast<int>(next() % 10000));
    sqlite3_bind_text(insert, 3, name.c_str(), -1, SQLITE_TRANSIENT);
    if (sqlite3_step(insert) != SQLITE_DONE) fail(db);
    sqlite3_reset(insert);
  }
  sqlite3_finalize(insert);
  run(db, "commit; create index by_name on item(name)");
  std::uint64_t sum = sum_of(db, "select owner, count(*), sum(price) from item group by owner");
  sum += sum_of(db, "select count(*) from item where name like '%77%'");
  sum += sum_of(db, "select sum(a.price) from item a join item b on a.name = b.name");
  sum += sum_of(db, "select id from item order by price desc, name limit 500");
  for (int i = 0; i < 500; ++i) {
    sum += sum_of(db, "select price * 2 + length(name) from item where id = " + std::to_string(i) +
                          " and (owner between 3 and 150 or name in ('a', 'b', 'name 7'))");
  }
  sqlite3_close(db);
  return sum;
}
