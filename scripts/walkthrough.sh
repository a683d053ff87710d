#!/usr/bin/env bash
# make walkthrough: every row of the user's story, in both modes, on a lab of
# its own. The lab goes down again whatever happens; go test's summary comes last.
set -euo pipefail
cd "$(dirname "$0")/.."

. scripts/own-lab.sh
# A tag of its own for each image, so that no node runs an older one that it has.
tag=$(sha256sum dist/kelpie.tar | cut -c1-12)
bin/lab load-image "kelpie:$tag=dist/kelpie.tar" test-metric-app:latest=dist/test-metric-app.tar
export KELPIE_WALKTHROUGH_KUBECONFIG KELPIE_WALKTHROUGH_REGISTRY KELPIE_WALKTHROUGH_BIN KELPIE_WALKTHROUGH_TAG=$tag
KELPIE_WALKTHROUGH_KUBECONFIG=$(bin/lab env --kubeconfig)
KELPIE_WALKTHROUGH_REGISTRY=$(bin/lab env --registry)
KELPIE_WALKTHROUGH_BIN=$(bin/lab env --bin)
(cd lab && go test -count=1 -v -timeout 75m -run '^TestWalkthrough$' ./walkthrough)
