#!/usr/bin/env bash
# Installs hot-shots, DogStatsD's client for Node.js, into the cache, once, and
# prints the folder that KELPIE_HOT_SHOTS names for the tests of agent/dogstatsd.
# Prints nothing, and says why, where there is no Node.js or no registry.
set -euo pipefail
version=17.1.1
dir=${XDG_CACHE_HOME:-$HOME/.cache}/kelpie/hot-shots-$version
if [ ! -e "$dir/.complete" ]; then
  if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    echo "Node.js is not installed: its client is not tested" >&2
    exit 0
  fi
  mkdir -p "$dir"
  # Beside it npm installs unix-dgram, optional as it needs a compiler: without
  # it only UDP is tested.
  if ! npm install --prefix "$dir" --no-save --no-audit --no-fund --loglevel=error "hot-shots@$version" >&2; then
    echo "hot-shots $version cannot be installed: Node.js' client is not tested" >&2
    exit 0
  fi
  touch "$dir/.complete"
fi
echo "$dir/node_modules"
