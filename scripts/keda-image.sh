#!/usr/bin/env bash
# make keda-image: dist/keda.tar and dist/tlsproxy.tar, from KEDA's module at the
# version that lab/keda/go.mod pins.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p bin dist
bin/lab build keda keda-adapter
for name in keda keda-adapter; do ln -sfn "$(bin/lab env --bin)/keda/$name" "bin/$name"; done
(cd lab && go build -ldflags "-s -w" -o ../bin/ ./cmd/tlsproxy)
for name in keda tlsproxy; do bin/lab image --spec "image/$name.yaml" -o "dist/$name.tar"; done
