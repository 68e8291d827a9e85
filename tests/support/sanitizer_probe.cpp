// SPDX-License-Identifier: BSL-1.0

// Checks whether a program with this sanitizer starts on this machine at all. tests/run runs it
// before ctest.
int main() {}
