# Kelpie. `make help` lists the targets.
#
# One set of Go flags for every step, so that building, vetting and linting share
# one build cache. -race needs cgo; nothing that we ship does.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CACHE     ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kelpie
BINARIES  := kelpie-agent kelpie-backend kelpie-cluster-agent kelpie
GOLANGCI  := $(CACHE)/tools/golangci-lint-v2.15.0/golangci-lint
VULNCHECK := $(CACHE)/tools/govulncheck-v1.9.0/govulncheck
LAB       := bin/lab
PROGRESS  := scripts/progress.sh
MODE      ?= inline
# Only one that is given on the command line: a KUBECONFIG that happens to be set
# must not send the demo to a cluster that people use.
KUBECONFIG_GIVEN := $(if $(filter command,$(origin KUBECONFIG)),$(KUBECONFIG))

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

##@ The two that matter

.PHONY: demo
demo: check-machine ## Watch an application scale 1 → 5 → 1 (MODE=inline|crd, DOWN=1, KUBECONFIG=path REGISTRY=host/path)
	@KUBECONFIG_GIVEN="$(KUBECONFIG_GIVEN)" MODE=$(MODE) DOWN=$(DOWN) REGISTRY=$(REGISTRY) ./scripts/demo.sh

.PHONY: test
test: check-machine ## Everything CI runs: format, vet, lint, vulnerabilities, unit, fuzz seeds, chart, and the walkthrough on the lab
	@./scripts/test.sh

##@ Building

.PHONY: build
build: ## The four static binaries and the demo application, into bin/
	@mkdir -p bin
	@for b in $(BINARIES); do $(PROGRESS) "build  bin/$$b" go build -ldflags "-s -w -X main.version=$(VERSION)" -o bin/$$b ./cmd/$$b; done
	@$(PROGRESS) "build  bin/test-metric-app" go build -ldflags "-s -w" -o bin/test-metric-app ./examples/test-metric-app

.PHONY: lab-tool
lab-tool: ## The lab's own command, bin/lab
	@mkdir -p bin
	@cd lab && ../$(PROGRESS) "build  bin/lab, bin/demo" go build -o ../bin/ ./cmd/lab ./cmd/demo

.PHONY: image
image: build lab-tool ## OCI archives of kelpie and of the demo application, into dist/, without Docker
	@mkdir -p dist
	@$(LAB) image --spec image/kelpie.yaml -o dist/kelpie.tar
	@$(LAB) image --spec image/test-metric-app.yaml -o dist/test-metric-app.tar

.PHONY: generate
generate: ## The value stream's code from its .proto (needs protoc: apt-get install protobuf-compiler)
	@command -v protoc >/dev/null || { echo "make: protoc is not installed: apt-get install protobuf-compiler" >&2; exit 1; }
	@cd / && for m in google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1; do \
	  GOBIN=$(CACHE)/tools/protoc go install $$m; done
	@PATH=$(CACHE)/tools/protoc:$$PATH protoc -I valuestream --go_out=valuestream --go_opt=paths=source_relative \
	  --connect-go_out=valuestream --connect-go_opt=paths=source_relative,package_suffix valuestream/valuestream.proto

##@ Checking

.PHONY: check
check: fmt-check vet lint ## Format, vet and lint, without running anything

.PHONY: fmt-check
fmt-check:
	@echo "check  gofmt"; out=$$(git ls-files '*.go' | xargs gofmt -l); [ -z "$$out" ] || { echo "not gofmt'ed (run gofmt -w):"; echo "$$out"; exit 1; }

.PHONY: vet
vet:
	@$(PROGRESS) "check  go vet" go vet ./...
	@cd lab && ../$(PROGRESS) "check  go vet, lab" go vet ./...
	@cd bench && ../$(PROGRESS) "check  go vet, bench" go vet ./...

.PHONY: lint
lint: $(GOLANGCI)
	@$(PROGRESS) "check  golangci-lint" $(GOLANGCI) run ./...
	@cd lab && ../$(PROGRESS) "check  golangci-lint, lab" $(GOLANGCI) run --config ../.golangci.yml ./...

.PHONY: vuln
vuln: $(VULNCHECK)
	@$(PROGRESS) "check  govulncheck" ./scripts/vuln.sh $(VULNCHECK)

.PHONY: unit
unit: ## Unit tests with -race, fuzz seeds included; API server tests use the lab's binaries when they are built
	@CGO_ENABLED=1 KUBEBUILDER_ASSETS="$$(./scripts/assets.sh)" HELM="$$(./scripts/assets.sh helm)" KELPIE_HOT_SHOTS="$$(./scripts/hot-shots.sh)" KELPIE_DATADOG_JS="$$(./scripts/datadog-js.sh)" \
	  $(PROGRESS) "test   unit, -race" go test -race -timeout 20m ./...
	@cd lab && CGO_ENABLED=1 ../$(PROGRESS) "test   unit, -race, lab" go test -race ./...

.PHONY: lab-test
lab-test: ## The lab's whole life, compared with a snapshot of the machine
	@cd lab && KELPIE_LAB_TEST=1 ../$(PROGRESS) "test   the lab" go test -count=1 -timeout 15m -run '^TestLab' .

.PHONY: walkthrough
walkthrough: image ## The user's story, every row, both modes, on the lab
	@./scripts/walkthrough.sh

.PHONY: keda-image
keda-image: lab-tool ## OCI archives of KEDA, built from its Go module (a long build, once), into dist/
	@./scripts/keda-image.sh

.PHONY: keda-test
keda-test: image keda-image ## KEDA itself beside Kelpie, on the lab
	@./scripts/keda-test.sh

.PHONY: certmanager-test
certmanager-test: lab-tool ## cert-manager's own controllers beside the cluster agent and a real API server
	@./scripts/certmanager-test.sh

.PHONY: bench-agent
bench-agent: ## The agent beside statsd_exporter, Telegraf and OpenTelemetry, ratios printed (QUICK=1 for a short run)
	@cd bench && go run ./agent $(if $(QUICK),-quick)

.PHONY: bench-backend
bench-backend: ## The backend beside Prometheus, ratios printed (QUICK=1 for a short run)
	@cd bench && go run ./backend $(if $(QUICK),-quick)

.PHONY: bench-provider
bench-provider: lab-tool ## The cluster agent beside the sample adapter, and with 10 000 metrics and autoscalers (QUICK=1 for a short run)
	@assets="$$(./scripts/assets.sh)"; [ -n "$$assets" ] || { echo "make: kube-apiserver and etcd are not built yet: make lab-up; make lab-down" >&2; exit 1; }; \
	  cd bench && KUBEBUILDER_ASSETS="$$assets" go run ./provider $(if $(QUICK),-quick)

.PHONY: bench-reaction
bench-reaction: image keda-image ## From load to value and replicas, by Kelpie pushed and polled and by KEDA, on the lab (QUICK=1 for a short run)
	@./scripts/bench-reaction.sh

##@ The lab

.PHONY: lab-up
lab-up: check-machine lab-tool ## A real one-node Kubernetes on this machine
	@$(LAB) up

.PHONY: lab-down
lab-down: lab-tool ## End it, and leave nothing behind
	@$(LAB) down

.PHONY: lab-env
lab-env: ## Shell variables for the lab: eval "$(make -s lab-env)"
	@[ -x $(LAB) ] || $(MAKE) -s lab-tool >&2
	@$(LAB) env
	@echo "export PATH=$(CURDIR)/bin:\$$PATH"

##@ Other

.PHONY: clean
clean: ## Remove what was built here (caches stay)
	@rm -rf bin dist

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: check-machine
check-machine:
	@KUBECONFIG_GIVEN="$(KUBECONFIG_GIVEN)" ./scripts/check-machine.sh

$(GOLANGCI):
	@cd / && GOBIN=$(@D) $(CURDIR)/$(PROGRESS) "build  golangci-lint (once; a few minutes)" go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

$(VULNCHECK):
	@cd / && GOBIN=$(@D) $(CURDIR)/$(PROGRESS) "build  govulncheck (once)" go install golang.org/x/vuln/cmd/govulncheck@v1.9.0
