#!/usr/bin/env bash
# progress.sh LABEL COMMAND…: runs a command that may be silent for minutes, and
# says every 20 seconds, on standard error, that it is still at work.
set -euo pipefail
label=$1
shift
echo "$label" >&2
# A timed read instead of sleep: killing the ticker then leaves no child behind
# that would hold a pipe of ours open.
(
  while :; do
    read -rt 20 <> <(:) || true
    echo "       … ${SECONDS} s" >&2
  done
) >/dev/null &
ticker=$!
trap 'kill "$ticker" 2>/dev/null || true; wait "$ticker" 2>/dev/null || true' EXIT
"$@"
if [ "$SECONDS" -ge 10 ]; then echo "       took ${SECONDS} s" >&2; fi
