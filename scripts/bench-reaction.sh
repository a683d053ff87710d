#!/usr/bin/env bash
# make bench-reaction: how soon autoscalers see load and act, by Kelpie pushed and
# polled and by KEDA, on a lab of its own. The lab goes down again whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/own-lab.sh
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
