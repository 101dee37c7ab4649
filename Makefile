# The recipes that people and CI share. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# The cluster that demo and tests use: the local one of tests/cluster, or, only when asked for,
# the one of CLUSTER_KUBECONFIG (with images pushed to IMAGE_REPO).
CLUSTER_KUBECONFIG ?=
IMAGE_REPO ?=
export CLUSTER_KUBECONFIG IMAGE_REPO
# Of the trainer's image: cpu, or cuda with libtorch's CUDA libraries.
VARIANT ?= cpu
# A kubeconfig that happens to be exported is never used.
unexport KUBECONFIG

LIBTORCH_ENV = environment="$$(scripts/libtorch.sh --env)"; eval "$$environment"

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	echo
	echo "  CLUSTER_KUBECONFIG=FILE  use that cluster instead of a local one (with IMAGE_REPO=registry/path)"
	echo "  VARIANT=cuda             build the trainer's image for GPUs"

.PHONY: require
require:
	@scripts/require.sh

.PHONY: demo
demo: require install ## set everything up, train examples/digits.yaml to the end, show the result
	@scripts/demo/demo.py

.PHONY: test
test: require ## set everything up, run all tests, remove the cluster again
	@trap 'tests/cluster/down.sh' EXIT
	$(MAKE) --no-print-directory test-unit test-trainer test-local-cluster test-cluster
	echo "make test: all passed"

.PHONY: test-unit
test-unit: lint ## everything that needs neither libtorch nor a cluster (about a minute when built)
	@echo "== unit tests"
	cargo test --locked

.PHONY: lint
lint: ## formatting, clippy, shell scripts
	@echo "== lint"
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	if command -v shellcheck >/dev/null; then git ls-files '*.sh' | xargs shellcheck -x -P SCRIPTDIR -P .; else echo 'lint: shellcheck is not installed; shell scripts are not checked'; fi
	if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; else echo 'lint: cargo-deny is not installed; licences are not checked'; fi

.PHONY: test-trainer
test-trainer: libtorch ## the trainer against libtorch: golden numbers, resume, ranks
	@echo "== trainer tests"
	$(LIBTORCH_ENV)
	cargo clippy --locked -p tests -p torch-bridge -p trainer-model -p trainer -p fuzz --all-targets -- -D warnings
	# Built always, though nothing here can run it: a wrong symbol would only show on a GPU.
	trainer/torch-bridge/build-cuda.sh
	cargo test --locked -p torch-bridge -p trainer-model -p trainer

.PHONY: test-local-cluster
test-local-cluster: ## the local cluster itself: nodes, network, volumes, faults, nothing left behind
	@echo "== the local cluster"
	tests/cluster/test.sh

.PHONY: test-cluster
test-cluster: install ## the whole on a real cluster: admission, life of a job, faults, chart, metrics
	@echo "== cluster tests"
	scripts/test-cluster.sh

.PHONY: test-faults
test-faults: install ## the faults that test-cluster has no time for: etcd, DNS, network, disk, eviction, preemption (40 to 75 minutes)
	@scripts/long-test.sh faults

.PHONY: test-neighbours
test-neighbours: install ## jobs in queues of Kueue, gangs of Volcano, what the Prometheus operator scrapes, trials of Katib, devices of DRA, a PyTorch script (half an hour, with their builds)
	@scripts/long-test.sh neighbours

.PHONY: soak
soak: install ## break everything around a job, SOAK_SECONDS=600 with SOAK_SEED=1, and compare its weights (20 minutes)
	@scripts/long-test.sh soak

.PHONY: parity
parity: libtorch ## compare with the Python YOLOv5, step by step and over whole trainings (40 minutes)
	@tests/parity/run.sh

.PHONY: fuzz
fuzz: libtorch ## feed the trainer's readers with broken files, FUZZ_SECONDS=60 each (10 minutes)
	@scripts/fuzz.sh

.PHONY: bench-trainer
bench-trainer: libtorch ## measure the trainer beside the Python YOLOv5 on the same cores (15 minutes, idle machine)
	@$(LIBTORCH_ENV)
	scripts/nasm.sh
	cargo build --quiet --locked --release -p trainer
	cargo build --quiet --locked --release -p trainer-data --example loader_speed
	python3 tests/bench/trainer.py "$$(scripts/peer.sh)"

.PHONY: bench-operator
bench-operator: ## measure the operator beside JobSet, Kubeflow Trainer and Indexed Jobs (40 minutes, idle machine)
	@scripts/build-binaries.sh operator
	tests/neighbours/trainer.sh build
	python3 tests/bench/operators/main.py

.PHONY: libtorch
libtorch: ## fetch libtorch into the cache
	@scripts/libtorch.sh >/dev/null

.PHONY: cluster-up
cluster-up: ## start the local two-node cluster (removes what a killed run left)
	@tests/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## remove the local cluster and everything it made
	@tests/cluster/down.sh

.PHONY: cluster-status
cluster-status: ## what of the local cluster runs
	@tests/cluster/status.sh

.PHONY: images
images: libtorch ## build both images from this checkout, without Docker or a registry
	@scripts/images.sh --variant "$(VARIANT)"

.PHONY: install
install: images ## cluster, images and chart: all that a first `kubectl apply` needs
	@scripts/install.sh

.PHONY: gen
gen: ## write generated files anew: CRD, API reference, transcripts
	@UPDATE=1 cargo test --locked -p crds -p operator

.PHONY: clean
clean: cluster-down ## remove the cluster and what was built (the cache of third-party programs stays)
	@cargo clean
