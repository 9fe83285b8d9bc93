.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
# Tests with many processes: what fails on a busy machine is tried once more by itself, then it is red.
# Where pytest itself broke (status 3), some were not tried at all: all of them once more.
TWICE = $(PYTEST) $(1) || case $$? in 1) $(PYTEST) $(1) --last-failed ;; 3) $(PYTEST) $(1) ;; *) false ;; esac
ARM := aarch64-unknown-linux-gnu
ARM_CARGO = CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(1)" cargo
ARM_EMULATED = $(call ARM_CARGO,qemu-aarch64 -L /usr/aarch64-linux-gnu)
ARM_ON_KERNEL := files::entry::away:: files::entry::tests:: http::listening::tests:: ptrace::aarch64::on_kernel::
ifeq ($(shell uname -m),aarch64)
ARM_CARGO = cargo
ARM_ON_KERNEL :=
endif
STAMP := $(VENV)/.setup
UV := $(or $(shell command -v uv),$(VENV)/bin/uv)

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {print "\n" substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ the two commands
demo: setup ## run the first experiments on three small programs; KEEP=1 leaves them up
	$(PY) examples/web-show/demo.py $(if $(KEEP),--keep)

test: check test-fast test-aarch64 test-host test-kubernetes test-cluster test-cluster-core test-survival test-kernel ## everything, stage by stage

##@ stages of make test, each alone
check: setup ## format, lint, types, layers, Rust
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	cd native && cargo fmt --check && cargo clippy --quiet --all-targets -- -D warnings

test-fast: setup ## models, steps, laws, parts; no root
	$(PYTEST) -m "not host and not kernel and not kubernetes and not cluster and not survival"
	cd native && cargo test --quiet

test-aarch64: setup ## clippy and Rust's tests for 64-bit Arm, in an emulator of processes; no root
	@# What a type of C is, and so what must be converted, differs between processors.
	@if rustup target list --installed | grep --quiet --line-regexp $(ARM) || rustup target add $(ARM); then \
	cd native && $(ARM_EMULATED) clippy --quiet --all-targets --target $(ARM) -- -D warnings -A clippy::unnecessary_cast && \
	echo "NOT RUN here, for qemu-aarch64 lacks ptrace, openat2 and sock_diag (make test-aarch64-kernel runs them): $(ARM_ON_KERNEL)" && \
	$(ARM_EMULATED) test --quiet --target $(ARM) -- $(addprefix --skip ,$(ARM_ON_KERNEL)); \
	else echo "SKIPPED: Rust's library for $(ARM) cannot be had here: rustup target add $(ARM)"; fi

test-aarch64-kernel: setup $(ARM) ## all of Rust's tests on Debian's kernel for 64-bit Arm, in an emulated machine; not in make test
	./testbed/system.sh machine
	cd native && PYTHONPATH=$(CURDIR) $(call ARM_CARGO,$(CURDIR)/$(PY) -m testbed.aarch64) test --target $(ARM) -- --test-threads=1

test-host: setup ## injectors, targets and the command line on this kernel; root
	$(call TWICE,-m "host and not survival and not kubernetes and not cluster")

test-kubernetes: setup ## the API's contract and the chart, with a real kube-apiserver
	$(PY) -m testbed.kubernetes
	$(PY) -m testbed.helm
	$(call TWICE,-m kubernetes tests/kubernetes tests/cluster)

test-cluster: cluster-programs ## on a Kubernetes of two nodes; root
	export SQUALL_TEST_CLUSTER=required; $(call TWICE,-m cluster tests/cluster --ignore=tests/cluster/survival)

test-cluster-core: cluster-programs ## kill each part of a cluster, and of Squall on it, once; root
	export SQUALL_TEST_CLUSTER=required; $(call TWICE,-m core tests/cluster/survival)

test-cluster-survival: cluster-programs ## all the ways in which it may end, with every kind of fault; root, not in make test
	SQUALL_TEST_CLUSTER=required $(PYTEST) -m cluster tests/cluster/survival

test-survival: setup ## kill parts at random, compare the host with what it was; root
	$(call TWICE,-m survival tests/survival)

test-kernel: setup ## the network and stress rooms on a kernel with netem and cgroup v2; root
	$(PY) -m testbed.uml

$(ARM):
	@rustup target list --installed | grep --quiet --line-regexp $@ || rustup target add $@

##@ every day
setup: $(STAMP) ## install what is missing, make .venv, build the native crate
$(STAMP): testbed/system.sh requirements.lock pyproject.toml native/Cargo.toml native/Cargo.lock $(shell find native/src -name '*.rs')
	./testbed/system.sh
	@test -x $(PY) || python3 -m venv $(VENV)
	@test -x $(UV) || $(PY) -m pip install --quiet --disable-pip-version-check uv
	$(UV) pip install --quiet --python $(PY) --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(PY) --no-deps -e . ./native
	@touch $@

cluster-up: cluster-programs ## NODES=2 NAME=dev: start a Kubernetes on this machine; root
	$(PY) -m testbed.cluster up --nodes $(or $(NODES),2) --name $(or $(NAME),dev)

cluster-down: setup ## NAME=dev: remove it with all that belongs to it
	$(PY) -m testbed.cluster down --name $(or $(NAME),dev)

cluster-programs: setup ## build Kubernetes, CoreDNS, helm and the images unless they are there
	$(PY) -m testbed.kubernetes
	$(PY) -m testbed.coredns
	$(PY) -m testbed.helm
	$(PY) -m testbed.images

format: setup ## rewrite what can be rewritten
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix --quiet .
	cd native && cargo fmt

bench: setup ## figures against limits measured in the same run
	for file in bench/[a-z]*.py; do echo "== $$file"; PYTHONPATH=. $(PY) $$file || exit 1; done

##@ things that are generated
image: setup ## the container image of controller and agent, and that of the tests' targets
	$(PY) -m testbed.images

generate: setup ## CRDs and the reference, from models and verbs; manifests from the chart
	$(PY) -m testbed.generate
	$(PY) -m testbed.manifests

lock: setup ## pin every dependency by hash
	$(UV) lock --quiet
	$(UV) export --no-emit-workspace --no-header --all-groups --quiet -o requirements.lock

room: setup ## NAME=disk_space KIND=DiskChaos: start a room for a new fault kind
	$(PY) -m testbed.room $(NAME) $(KIND)

.PHONY: help demo test check test-fast test-aarch64 test-aarch64-kernel $(ARM) test-host test-kubernetes test-cluster test-cluster-core test-cluster-survival test-survival test-kernel \
	setup cluster-up cluster-down cluster-programs format bench image generate lock room
