#!/usr/bin/env bash
# Installs Datadog's API client for JavaScript into the cache, once, and prints
# the folder that KELPIE_DATADOG_JS names for the tests of backend/clienttest.
# Prints nothing, and says why, where there is no Node.js or no registry.
set -euo pipefail
version=1.64.0
dir=${XDG_CACHE_HOME:-$HOME/.cache}/kelpie/datadog-api-client-js-$version
if [ ! -e "$dir/.complete" ]; then
  if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
    echo "Node.js is not installed: Datadog's JavaScript client is not tested" >&2
    exit 0
  fi
  mkdir -p "$dir"
  if ! npm install --prefix "$dir" --no-save --no-audit --no-fund --ignore-scripts --loglevel=error "@datadog/datadog-api-client@$version" >&2; then
    echo "@datadog/datadog-api-client $version cannot be installed: it is not tested" >&2
    exit 0
  fi
  touch "$dir/.complete"
fi
echo "$dir/node_modules"
