#!/usr/bin/env bash
# make test: what CI runs, in the order in which a mistake is cheapest to find.
set -euo pipefail
cd "$(dirname "$0")/.."

phase() {
  echo
  echo "══ $1 (${SECONDS}s)"
  shift
  make --no-print-directory "$@"
}

phase "Format and vet" fmt-check vet
phase "Lint" lint
phase "Known vulnerabilities" vuln
phase "The lab's tool and binaries" lab-tool
bin/lab build
phase "The lab's whole life: up, pods, crash, up again, down, nothing left" lab-test
phase "Unit tests with -race, fuzz seeds, chart" unit
phase "The walkthrough on a real Kubernetes, both modes" walkthrough
