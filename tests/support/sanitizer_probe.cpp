// SPDX-License-Identifier: BSL-1.0

// Does a program under this sanitizer start on this machine at all? tests/run asks before ctest
// does.
int main() {}
