# shellcheck shell=bash
# shellcheck disable=SC2034  # cache, work, deb and problem are for who sources this
# For fetch_kernel and fetch_qemu: packages out of another suite of the Debian mirror that this machine's apt is already
# set up with. Nothing is installed; apt's own lists and caches are not touched.
#
# The script that sources this sets -euo pipefail and LC_ALL=C.

# cache_open NAME: the folder $cache, locked, with a folder $work of our own that goes with us.
cache_open() {
  cache=${ASIO_PULSE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/asio_pulse}/$1
  mkdir -p "$cache"
  exec 9> "$cache/.lock"
  if command -v flock > /dev/null; then flock 9; fi
  work=$cache/.fetch.$$
  rm -rf "$cache"/.fetch.*  # what a run that was killed left; the lock says that there is no other
  trap 'rm -rf "$work"' EXIT
}

mirror_codename() { sed -nE 's/^VERSION_CODENAME="?([^"]*)"?$/\1/p' /etc/os-release 2> /dev/null || true; }

# mirror_open SUITE: reads its lists, for mirror_apt. Fails with a sentence in $problem.
mirror_open() {
  local suite=$1 target uri entry key
  problem="this is not a Debian machine with apt (needs apt-get, apt-cache and dpkg-deb)"
  for entry in apt-get apt-cache dpkg-deb; do command -v $entry > /dev/null || return 1; done
  # apt itself is asked what serves this machine's Debian, so that both of its formats will do, wherever they lie.
  problem="no apt source entry of this machine serves Debian's main component"
  # shellcheck disable=SC2016  # apt's own variables
  target=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI) $(SOURCESENTRY)' \
    'Created-By: Packages' 'Component: main' |
    awk -v codename="$(mirror_codename)" '
      $1 ~ "^(" codename "|stable|testing|sid|unstable)/?$" && !/security/ {print; exit}')
  [ -n "$target" ] || return 1
  read -r _ uri entry <<< "$target"
  key=$({ grep -ioE 'signed-by *[:=] */[^] ,]+' "${entry%:*}" || true; } | head -1 | sed 's:^[^/]*::')
  if [ -z "$key" ]; then key=/usr/share/keyrings/debian-archive-keyring.gpg; fi
  if [ -r "$key" ]; then key="[signed-by=$key]"; else key=; fi
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  echo "deb $key $uri $suite main" > "$work/private.list"
  mirror_options=(-o Dir::Etc::sourcelist="$work/private.list" -o Dir::Etc::sourceparts=-
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::Cache::pkgcache=pkgcache.bin
    -o Dir::Cache::srcpkgcache=srcpkgcache.bin -o Dir::State::status="$work/none" -o Acquire::Languages=none
    -o Acquire::Retries=3 -o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30)
  : > "$work/none"  # as if nothing were installed: what is must not be taken for what is offered
  if [ "$(id -u)" = 0 ]; then mirror_options+=(-o APT::Sandbox::User=root); fi
  mirror_apt apt-get update > "$work/update.log" 2>&1 || true
  if [ -z "$(mirror_apt apt-cache pkgnames lib 2> /dev/null | head -1 || true)" ]; then
    problem=$(grep -E 'Failed to fetch|^E:' "$work/update.log" | head -1 || true)
    problem="the package list of $suite could not be read: $problem"
    return 1
  fi
}

# mirror_apt apt-get|apt-cache ARGUMENT...
mirror_apt() {
  local tool=$1
  shift
  "$tool" -qq "${mirror_options[@]}" "$@"
}

# mirror_download PACKAGE: its archive's path in $deb, or a sentence in $problem.
mirror_download() {
  rm -rf "$work/deb" && mkdir -p "$work/deb"
  if ! (cd "$work/deb" && mirror_apt apt-get download "$1") > "$work/download.log" 2>&1; then
    problem="$1 could not be downloaded: $(tail -1 "$work/download.log")"
    return 1
  fi
  deb=$(find "$work/deb" -name '*.deb' -print -quit)
}
