# Thin names for developer tasks. The logic is Rust, in xtask/; `cargo xtask help` lists it.
# Every target sets up what it needs, or says exactly what is missing.

.DEFAULT_GOAL := help
.PHONY: help test check

XTASK = sh scripts/setup.sh && cargo xtask

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: ## everything that a change must pass; CI runs this
	@$(XTASK) test

check: ## the fast loop: format, lints, tidy, unit tests
	@$(XTASK) check
