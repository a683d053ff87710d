#!/usr/bin/env bash
# keda-install.sh REGISTRY TAG: installs KEDA, without its APIService, into the
# cluster that KUBECONFIG names, and waits until it is ready. Its images,
# REGISTRY/keda:TAG and REGISTRY/tlsproxy:TAG, are those of make keda-image.
#
#   BACKEND  what KEDA's Datadog scaler reaches as https://api.datadoghq.com
#            (default http://datadog-agent-backend.datadog:8080)
#
# It may be run again, to change BACKEND or the images.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# != 2 ]; then
  echo "usage: KUBECONFIG=path $0 REGISTRY TAG" >&2
  exit 2
fi
registry=$1 tag=$2
backend=${BACKEND:-http://datadog-agent-backend.datadog:8080}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# KEDA's manifests are part of its module, and read-only there.
cp -r "$(cd lab/keda && go list -m -f '{{.Dir}}' github.com/kedacore/keda/v2)/config" "$work/config"
chmod -R u+w "$work"
mkdir "$work/keda"
cp lab/keda/*.yaml "$work/keda/"

kubectl create namespace keda --dry-run=client -o yaml | kubectl apply --server-side -f - >/dev/null
if ! kubectl -n keda get secret tlsproxy >/dev/null 2>&1; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=api.datadoghq.com \
    -addext subjectAltName=DNS:api.datadoghq.com -keyout "$work/tls.key" -out "$work/tls.crt" 2>/dev/null
  kubectl -n keda create secret tls tlsproxy --cert "$work/tls.crt" --key "$work/tls.key" >/dev/null
fi
# The Service first: KEDA's operator gets its address as that of api.datadoghq.com.
sed '/^---/,$d' lab/keda/tlsproxy.yaml | kubectl apply --server-side -f - >/dev/null
address=$(kubectl -n keda get service tlsproxy -o jsonpath='{.spec.clusterIP}')

sed -i -e "s#\bREGISTRY\b#$registry#; s#\bTAG\b#$tag#; s#\bTLSPROXY\b#$address#; s#\bBACKEND\b#$backend#" "$work"/keda/*.yaml
kubectl kustomize "$work/keda" | kubectl apply --server-side --force-conflicts -f - | grep -v CustomResourceDefinition
for name in keda-operator keda-metrics-apiserver tlsproxy; do
  kubectl -n keda rollout status "deployment/$name" --timeout=180s
done
