#!/usr/bin/env bash
# make certmanager-test: cert-manager's own controllers, at the version that
# lab/certmanager/go.mod pins, beside the cluster agent and a real API server.
set -euo pipefail
cd "$(dirname "$0")/.."

assets=$(./scripts/assets.sh)
helm=$(./scripts/assets.sh helm)
if [ -z "$assets" ] || [ -z "$helm" ]; then
  echo "certmanager-test: kube-apiserver, etcd and helm are not built yet: make lab-up; make lab-down" >&2
  exit 1
fi
(cd lab/certmanager && ../../scripts/progress.sh "build  bin/certmanager (a few minutes, once)" go build -o ../../bin/certmanager .)
crds=$(cd lab/certmanager && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/crds
KELPIE_CERT_MANAGER=$PWD/bin/certmanager KELPIE_CERT_MANAGER_CRDS=$crds KUBEBUILDER_ASSETS=$assets HELM=$helm \
  go test -count=1 -timeout 10m -run '^TestCertManager$' ./clusteragent
