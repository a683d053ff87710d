#!/usr/bin/env bash
# make keda-test: KEDA itself beside Kelpie, on a lab of its own. The lab goes down
# again whatever happens; go test's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/own-lab.sh
# A tag of its own for each image, so that no node runs an older one that it has.
tag=$(sha256sum dist/kelpie.tar | cut -c1-12)
keda=$(cat dist/keda.tar dist/tlsproxy.tar | sha256sum | cut -c1-12)
bin/lab load-image "kelpie:$tag=dist/kelpie.tar" test-metric-app:latest=dist/test-metric-app.tar \
  "keda:$keda=dist/keda.tar" "tlsproxy:$keda=dist/tlsproxy.tar"
export KELPIE_KEDA_KUBECONFIG KELPIE_KEDA_REGISTRY KELPIE_KEDA_BIN KELPIE_KEDA_KELPIE_TAG=$tag KELPIE_KEDA_TAG=$keda
KELPIE_KEDA_KUBECONFIG=$(bin/lab env --kubeconfig)
KELPIE_KEDA_REGISTRY=$(bin/lab env --registry)
KELPIE_KEDA_BIN=$(bin/lab env --bin)
(cd lab && go test -count=1 -v -timeout 25m -run '^TestKEDA$' ./walkthrough)
