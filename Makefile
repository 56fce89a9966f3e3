# Thin names for developer tasks. The logic is Rust, in xtask/; `cargo xtask help` lists it.
# Every target sets up what it needs, or says exactly what is missing.

.DEFAULT_GOAL := help
.PHONY: help setup demo cluster test test-cluster soak check coverage docs gen bench bench-quick fuzz clean

XTASK = sh scripts/setup.sh && cargo xtask

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing on this machine (done by the others too)
	@$(XTASK) setup

demo: ## two projects with sample apps go to sleep and wake up, on this machine
	@sh scripts/setup.sh && cargo build --release --locked --package nagi-cli
	@exec target/release/nagi demo $(ARGUMENTS)

cluster: ## a real Kubernetes on this machine, with three nodes when you are root
	@$(XTASK) cluster up $(ARGUMENTS)

test: ## everything that a change must pass; CI runs this
	@$(XTASK) test

test-cluster: ## harness, delivery, product and faults on a real Kubernetes that is started here
	@$(XTASK) test-cluster

soak: ## every fault and every recovery on a real control plane, also those of minutes; writes docs/faults.md
	@$(XTASK) soak $(ARGUMENTS)

check: ## the fast loop: format, lints, tidy, unit tests
	@$(XTASK) check

coverage: ## which lines the tests reach, with pages to read in target/coverage
	@$(XTASK) coverage --html

docs: ## run the shell blocks of README and docs/
	@$(XTASK) docs

gen: ## write the generated pages and files anew
	@$(XTASK) gen

bench: ## speed and size against the goals and against peers, in one run
	@$(XTASK) bench

bench-quick: ## a short run that catches a collapse
	@$(XTASK) bench --quick

fuzz: ## every fuzz target for a minute
	@$(XTASK) fuzz

clean: ## delete what was built; caches outside the clone stay
	@cargo clean
