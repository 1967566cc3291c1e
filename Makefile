# meshbridge. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0

BIN := $(CURDIR)/.bin
GO ?= go
SOURCE ?= istiod
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
export GOFLAGS ?=

CONFORMANCE := testdata/conformance
ETCD := testdata/etcd
DEPLOY := testdata/deploy

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build .bin/meshbridge
	$(GO) build -ldflags "-X main.version=$(VERSION)" -o $(BIN)/meshbridge ./cmd/meshbridge

.PHONY: demo
demo: build ## a real istiod and the bridge, live (SOURCE=file: in seconds, from captured xDS)
	@testdata/demo/demo.sh $(SOURCE) $(BIN)

.PHONY: test
test: ## every test of the main module once, with the race detector but where there is one goroutine
	$(GO) test $(RACE) -shuffle=on $$($(GO) list ./... | grep -v '/translate$$')
	$(GO) test -shuffle=on ./translate
# The race detector needs a C compiler, without which Go turns cgo off.
RACE = $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.PHONY: check
check: $(BIN)/golangci-lint ## static checks: format, lint, vet, tidy, generated files
	@diff=$$($(BIN)/golangci-lint fmt --diff); if [ -n "$$diff" ]; then echo "$$diff" >&2; echo "run 'make fix'" >&2; exit 1; fi
	$(BIN)/golangci-lint run ./...
	$(GO) vet ./...
	$(GO) mod tidy -diff
	cd $(CONFORMANCE) && $(GO) vet ./...
	cd $(ETCD) && $(GO) vet ./...
	cd $(DEPLOY) && $(GO) vet ./...

.PHONY: fix
fix: $(BIN)/golangci-lint ## format, fix what the linters can, tidy go.mod
	$(BIN)/golangci-lint fmt
	$(BIN)/golangci-lint run --fix ./...
	$(GO) mod tidy

.PHONY: golden
golden: ## rewrite the golden files; review the diff like code
	$(GO) test ./translate -update

.PHONY: capture
capture: ## record again what a real istiod sends (SCENARIO: some of testdata/istiod); then make golden
	cd $(CONFORMANCE) && $(GO) run ./cmd/capture $(SCENARIO)
SCENARIO ?=

.PHONY: conformance
conformance: build ## drive the bridge as a process against a real istiod, by the real istioctl too
	cd $(CONFORMANCE) && $(GO) build -o $(BIN)/ ./cmd/istiod istio.io/istio/istioctl/cmd/istioctl
	cd $(CONFORMANCE) && MESHBRIDGE=$(BIN)/meshbridge ISTIOD=$(BIN)/istiod ISTIOCTL=$(BIN)/istioctl \
	  $(GO) test -count=1 -timeout 15m ./...

.PHONY: soak
soak: build ## break a mesh at random under traffic, for SOAKTIME, with SEED (0: a new one); make conformance has a minute of it
	cd $(CONFORMANCE) && MESHBRIDGE=$(BIN)/meshbridge SOAKTIME=$(SOAKTIME) SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v -run 'TestSoak$$' ./soak
SOAKTIME ?= 10m
SEED ?= 0

.PHONY: etcd
etcd: build ## etcd's clients and random requests against a real etcd and the store
	cd $(ETCD) && MESHBRIDGE=$(BIN)/meshbridge $(GO) test -count=1 ./...

.PHONY: deploy
deploy: build ## the injection templates by Istio's injector, the chart by Helm's engine, the images' steps (UPDATE=-update: goldens)
	cd $(DEPLOY) && MESHBRIDGE=$(BIN)/meshbridge $(GO) test -count=1 -timeout 15m ./... $(UPDATE)
UPDATE ?=

.PHONY: bench
bench: build ## side by side with a real etcd and HAProxy, and the bridge's own figures
	cd $(ETCD) && $(GO) run ./bench -meshbridge $(BIN)/meshbridge
	$(GO) run ./capture/bench

.PHONY: fuzz
fuzz: fuzz-targets fuzz-etcd ## look for faults with random input, for long

.PHONY: fuzz-targets
fuzz-targets: ## each fuzz target of FUZZPKG (default: all) for FUZZTIME
	@for pkg in $$($(GO) list $(FUZZPKG)); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
	  done; \
	done
FUZZTIME ?= 60s
FUZZPKG ?= ./...

.PHONY: fuzz-etcd
fuzz-etcd: build ## FUZZETCD rounds of new random requests and watches to a real etcd and the store
	cd $(ETCD) && MESHBRIDGE=$(BIN)/meshbridge $(GO) test -count=$(FUZZETCD) -timeout 2h \
	  -run 'Random|WatchStreams|WatchOver|Linearizable' . -seed 0 -ops 20000
FUZZETCD ?= 10

$(BIN)/golangci-lint: Makefile
	GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	@touch $@
