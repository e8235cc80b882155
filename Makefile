# Every job of the project, the same on a laptop and in CI. A machine needs Go, GNU make and a C compiler (the race
# detector is cgo); everything else is installed or built by the targets themselves: Debian packages by hack/setup,
# Go tools by "go tool" from hack/tools/go.mod, where they are pinned.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# Debian keeps nginx and haproxy out of an ordinary user's path.
export PATH := $(PATH):/usr/sbin:/sbin

TOOL = go tool -modfile=hack/tools/go.mod
VERSION = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# How long each fuzz target runs.
export FUZZTIME ?= 10s

# The packages whose tests start control planes: one after the other, since each is a load for the machine.
PLANES = /(scaling/kube(/.*)?|scaling/v1alpha1|test/chart|test/cluster|test/soak|docs)$$

# The packages that are tested without the race detector as well: it cannot see the engine's own system calls, so that in
# race builds there are none.
DIRECT = ./activator/http1/... ./test/wire

.PHONY: help build image cluster helm demo test e2e lint fmt generate bench bench-cold fuzz ci clean cc

help: ## Show this list
	@echo "make TARGET"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/activator, with the version that git describes
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o bin/activator ./cmd/activator

image: ## Build the container images, as bin/images/*.tar (CHECK=1: and again, from a clone)
	@hack/image/build

cluster: ## Build bin/cluster, which brings up a real Kubernetes on this machine
	CGO_ENABLED=0 go build -buildvcs=false -o bin/cluster ./test/cluster/cmd/cluster

helm: ## Build bin/helm, which installs charts/dormouse
	@hack/helm/build

demo: ## Watch sleeping services wake for held requests (DEMO_ONESHOT=1: end by itself)
	@go run ./hack/demo

test: cc ## Run every test under the race detector
	@hack/setup test
	@go run ./test/cluster/cmd/cluster build --control-plane
	@hack/helm/build
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 20m $$(go list ./... | grep -vE '$(PLANES)')
	CGO_ENABLED=0 DORMOUSE_HTTP1_ENGINE=native go test -shuffle=on $(DIRECT)
	CGO_ENABLED=1 go test -race -shuffle=on -p 1 $$(go list ./... | grep -E '$(PLANES)')
	CGO_ENABLED=1 go test -C hack/image -race -shuffle=on ./...

e2e: cc image ## Test on a real cluster: one made for it (root), or that of KUBECONFIG
	@hack/e2e

lint: ## Check everything about the source that is not a test
	@hack/setup lint
	@hack/lint

fmt: ## Format the Go source
	@$(TOOL) golangci-lint fmt

generate: ## Make generated files anew
	go generate ./...

bench: ## Measure beside nginx, HAProxy and ReverseProxy (BENCH_QUICK=1: a smoke test)
	@hack/setup bench
	@go run ./bench

bench-cold: image ## Measure cold starts on a real cluster, as root (BENCH_QUICK=1: a smoke test)
	@hack/bench-cold

fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@hack/fuzz

ci: ## Run what a submission must pass
	@bash .ci/run

clean: ## Remove what was built
	rm -rf bin

cc:
	@cc=$$(go env CC); command -v "$${cc%% *}" >/dev/null || \
		{ echo "make test needs a C compiler for the race detector, and '$$cc' is not there: install gcc, or set CC" >&2; exit 1; }
