# shellcheck shell=bash
# The packages that the project's scripts need on Debian 12, and how to install those that are missing.
#
# Sourced by tests/run, benches/run and .ci/run:
#     . tests/support/provision.sh
#     provision test            # and/or: bpf, bench, checkpoints, checkpoint_matrix, compat, kernel, ci, libcxx
# Asks dpkg first and calls apt only when something is missing. Never removes a package (--no-remove),
# and keeps whatever Boost from 1.74 on the machine has: Debian's 1.74 and 1.81 exclude each other.

# provision_packages GROUP...: the packages of these groups, one a line. Boost is not among them.
provision_packages() {
  local group
  for group in "$@"; do
    case $group in
      test)
        echo g++ cmake ninja-build ccache pkg-config libfmt-dev libdw-dev libgtest-dev libgmock-dev libssl-dev python3
        echo libncurses-dev libcli11-dev            # pulse_top
        echo prometheus-cpp-dev libcurl4-openssl-dev    # the exporter
        ;;
      bench) echo g++ cmake ninja-build ccache git libfmt-dev libdw-dev libssl-dev python3 wrk valgrind tcl libcli11-dev libbenchmark-dev ;;
      # The peer programs of the benches, benches/peers: each toolchain is optional.
      peers) echo cmake ninja-build python3 rustc cargo librust-tokio-dev golang-go erlang-base ;;
      # Automatic checkpoints: the plugins are built for these compilers. The matrix has one more.
      checkpoints) echo gcc-12-plugin-dev clang-16 llvm-16-dev lld-16 csmith libcsmith-dev gdb python3 ;;
      checkpoint_matrix) provision_packages checkpoints; echo clang-19 llvm-19-dev lld-19 libclang-rt-16-dev libclang-rt-19-dev ;;
      # The other Boosts come as .deb archives that are unpacked, never installed.
      compat) echo zstd xz-utils ca-certificates libssl-dev liburing-dev mold ;;
      # To build the sched_ext program and its loader.
      bpf) echo clang llvm bpftool libbpf-dev libelf-dev zlib1g-dev libcli11-dev ;;
      # To boot kernels with it, built by two clangs: x86-64 only.
      kernel)
        provision_packages bpf
        echo clang-16
        if [ "$(uname -m)" = x86_64 ]; then
          echo qemu-system-x86 cpio binutils xz-utils zstd stress-ng
          command -v busybox >/dev/null || echo busybox-static  # Debian has it in two packages that exclude each other
        fi
        ;;
      ci) echo git clang-16 libclang-rt-16-dev clang-tidy-16 clang-format-14 prometheus ;;  # prometheus: for promtool
      # By itself: Debian's libc++ of each version excludes the others, and no package is removed here.
      libcxx) echo libc++-16-dev libc++abi-16-dev ;;
      *) echo "provision: no group '$group'" >&2; return 1 ;;
    esac
  done | tr ' ' '\n' | sort -u
}

# provision_boost_version: BOOST_VERSION of the Boost on this machine (108100), or nothing.
provision_boost_version() {
  local header
  if command -v g++ >/dev/null; then
    printf '#include <boost/version.hpp>\nBOOST_VERSION\n' | g++ -E -P -x c++ - 2>/dev/null |
      tail -n 1 | grep -E '^[0-9]+$' || true
    return
  fi
  for header in /usr/local/include/boost/version.hpp /usr/include/boost/version.hpp; do
    if [ -r "$header" ]; then
      sed -nE 's/^#define BOOST_VERSION ([0-9]+).*/\1/p' "$header"
      return
    fi
  done
}

# provision_boost_packages: the Boost packages to have beside what is there, one a line.
provision_boost_packages() {
  local version owner release
  owner=$(dpkg -S /usr/include/boost/version.hpp 2>/dev/null | sed -nE 's/^libboost([0-9.]+)-dev.*/\1/p')
  version=$(provision_boost_version)
  if [ -n "$version" ] && [ "$version" -lt 107400 ]; then
    echo "provision: the Boost on this machine is older than 1.74 (BOOST_VERSION $version)" >&2
    return 1
  fi
  if [ -n "$version" ] && [ -z "$owner" ]; then
    return 0  # installed by hand: its owner's business
  fi
  release=${owner:-1.81}
  echo "libboost$release-dev"
  echo "libboost-context$release-dev"
  case $release in
    1.74) echo "libboost-coroutine$release-dev" ;;  # stackful coroutines before 1.80; no Boost.JSON yet
    *) echo "libboost-json$release-dev" ;;
  esac
}

# provision_missing PACKAGE...: those that are not installed.
provision_missing() {
  local package
  for package in "$@"; do
    case $(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null) in
      ?i*) ;;
      *) echo "$package" ;;
    esac
  done
}

provision_apt() {
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "provision: needs root or sudo to install: $*" >&2; return 1; }
    sudo=(sudo)
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

# provision GROUP...: installs what the groups need and the machine lacks.
provision() {
  local wanted missing=()
  wanted=$(provision_packages "$@") || return 1
  wanted+=$'\n'$(provision_boost_packages) || return 1
  # shellcheck disable=SC2086  # one word a package
  mapfile -t missing < <(provision_missing $wanted)
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "provision: installing ${missing[*]}"
  if ! provision_apt -qq update; then
    sleep 5
    provision_apt -qq update || echo "provision: apt-get update failed; trying with the lists at hand" >&2
  fi
  provision_apt -qq -y --no-remove --no-install-recommends install "${missing[@]}" || {
    echo "provision: could not install ${missing[*]}" >&2
    return 1
  }
}
