#!/usr/bin/env bash
# make demo: build, bring a cluster up (or use the one that is given), run the
# walkthrough with narration, and take everything down again.
#
#   KUBECONFIG_GIVEN  kubeconfig of a cluster the user already has; then REGISTRY
#                     is where its nodes pull from and we may push to
#   MODE              inline | crd
#   DOWN              1: do not stay up at the end, even with a terminal
set -euo pipefail
cd "$(dirname "$0")/.."

keep=()
if [ -t 0 ] && [ -t 1 ] && [ -z "${DOWN:-}" ]; then keep=(-keep); fi
result=$(mktemp)
down() { rm -f "$result"; }
trap 'down' EXIT

echo "── Building Kelpie, its image and the lab's tool (the first time takes a few minutes)"
make --no-print-directory image
# A tag of its own for each image, so that no node runs an older one that it has.
tag=$(sha256sum dist/kelpie.tar | cut -c1-12)

if [ -n "${KUBECONFIG_GIVEN:-}" ]; then
  if [ -z "${REGISTRY:-}" ]; then
    echo "demo: with KUBECONFIG, say where that cluster pulls images from: make demo KUBECONFIG=$KUBECONFIG_GIVEN REGISTRY=registry.example.com/me" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    # The lab's own places need root; helm, kubectl and hey alone do not.
    home=${XDG_CACHE_HOME:-$HOME/.cache}/kelpie/lab
    export KELPIE_LAB_STATE=$home/state KELPIE_LAB_CACHE=$home/cache
  fi
  bin/lab build helm kubectl hey
  bin/lab load-image --registry "$REGISTRY" "kelpie:$tag=dist/kelpie.tar" test-metric-app:latest=dist/test-metric-app.tar
  bin/demo -mode "$MODE" -root . -bin "$(bin/lab env --bin)" -kubeconfig "$KUBECONFIG_GIVEN" -registry "$REGISTRY" -tag "$tag" -result "$result" "${keep[@]}"
  cat "$result"
  exit 0
fi

echo "── A real Kubernetes on this machine (the first build takes about seven minutes on two cores, later ones seconds)"
down() {
  code=$?
  echo "── Taking the lab down"
  if ! bin/lab down; then
    echo "demo: the lab did not go down cleanly; run: make lab-down" >&2
    code=1
  fi
  cat "$result"
  rm -f "$result"
  exit "$code"
}
if bin/lab status >/dev/null 2>&1; then
  echo "demo: a lab is up already, and the demo would take it down at its end: make lab-down first" >&2
  trap - EXIT
  exit 1
fi
bin/lab up
bin/lab load-image "kelpie:$tag=dist/kelpie.tar" test-metric-app:latest=dist/test-metric-app.tar
bin/demo -mode "$MODE" -root . -bin "$(bin/lab env --bin)" -kubeconfig "$(bin/lab env --kubeconfig)" -registry "$(bin/lab env --registry)" -tag "$tag" -result "$result" "${keep[@]}"
