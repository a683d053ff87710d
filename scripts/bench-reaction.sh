#!/usr/bin/env bash
# make bench-reaction: how soon autoscalers see load and act, by Kelpie pushed and
# polled and by KEDA, on a lab of its own. The lab goes down again whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
if bin/lab status >"$log" 2>&1; then
  echo "bench-reaction: a lab is up already, and this would take it down: make lab-down first" >&2
  exit 1
fi
down() {
  code=$?
  if ! bin/lab down >"$log" 2>&1; then
    cat "$log" >&2
    code=1
  fi
  rm -f "$log"
  exit "$code"
}
trap down EXIT

bin/lab up >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
tag=$(sha256sum dist/kelpie.tar | cut -c1-12)
keda=$(cat dist/keda.tar dist/tlsproxy.tar | sha256sum | cut -c1-12)
bin/lab load-image "kelpie:$tag=dist/kelpie.tar" "keda:$keda=dist/keda.tar" "tlsproxy:$keda=dist/tlsproxy.tar"
export KUBECONFIG PATH
KUBECONFIG=$(bin/lab env --kubeconfig)
PATH=$(bin/lab env --bin):$PATH
registry=$(bin/lab env --registry)
size=()
[ -z "${QUICK:-}" ] || size=(-apps 4 -rounds 1)
(cd bench && go build -o ../bin/reaction ./reaction)
bin/reaction -root . -registry "$registry" -tag "$tag" -keda-tag "$keda" "${size[@]}" "$@"
