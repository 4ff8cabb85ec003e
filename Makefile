# `make` says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

target := $(or $(CARGO_TARGET_DIR),target)
# A folder of its own: other flags would build everything in the usual one again. As in hack/static.sh.
static_target := $(shell uname -m)-unknown-linux-gnu
agent_binary := $(target)/static/$(static_target)/agent/moorage-agent
# Finds or builds the control plane's tools and loads their paths, in the shell of a recipe.
tools = tools=$$(hack/tools.sh --env); eval "$$tools"
# Stands in for cloudflared on servers of the lab.
connector_binary := $(target)/static/$(static_target)/stand-in/moorage-sim
# What servers of the lab run: the agent as servers get it, cloudflared, and OpenClaw with its Node.js.
# No registry has cloudflared, so that it may be missing.
programs = if [[ $${CLOUDFLARED_BIN:-none} == none ]]; then \
	echo "cloudflared is missing: the simulator's connector stands in" >&2; make --no-print-directory connector; \
	export MOORAGE_LAB_CLOUDFLARED="$(abspath $(connector_binary))"; else export MOORAGE_LAB_CLOUDFLARED="$$CLOUDFLARED_BIN"; fi; \
	bundle=$$(MOORAGE_BIN="$(abspath $(target))/debug/moorage" hack/openclaw-bundle.sh); \
	export MOORAGE_LAB_AGENT="$(abspath $(agent_binary))" MOORAGE_LAB_NODE="$$bundle/node.tar.gz" MOORAGE_LAB_OPENCLAW="$$bundle/openclaw.tar.gz"
# The OpenClaw that servers of the lab are updated from.
older = older=$$(MOORAGE_BIN="$(abspath $(target))/debug/moorage" hack/openclaw-bundle.sh 2026.9.5); \
	export MOORAGE_LAB_OPENCLAW_OLDER="$$older/openclaw.tar.gz"
# The tools and the root filesystem of the lab, where this machine can run it (root on Linux).
lab = lab=$$(hack/lab.sh --env --optional); eval "$$lab"
# The real OpenClaw and a plugin of it, for the tests of the worker, where the lab runs.
openclaw = if [[ $${MOORAGE_ROOTFS:-} ]]; then \
	OPENCLAW_DIR=$$(MOORAGE_BIN="$(abspath $(target))/debug/moorage" hack/openclaw-bundle.sh --unpacked); \
	OPENCLAW_PLUGIN_ARTIFACT=$$(MOORAGE_BIN="$(abspath $(target))/debug/moorage" hack/openclaw-bundle.sh --plugin @openclaw/msteams); \
	export OPENCLAW_DIR OPENCLAW_PLUGIN_ARTIFACT OPENCLAW_PLUGIN=@openclaw/zalo@2026.9.5; fi

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## One instance from kubectl apply to Ready on this machine; Ctrl-C ends it. ONCE=1: checks, deletes, exits. IMAGE=1: the operator out of its image
	@$(tools); exec "$(target)/debug/moorage-demo" $(if $(filter 1,$(ONCE)),--once) $(if $(filter 1 quick,$(IMAGE)),--image "$$($(if $(filter quick,$(IMAGE)),QUICK=1) hack/image.sh --rootfs)")

.PHONY: lab
lab: build agent ## The same on a real Debian with real programs (root, Linux). ONCE=1: checks, deletes, exits
	@$(tools); lab=$$(hack/lab.sh --env); eval "$$lab"; $(programs); exec "$(target)/debug/moorage-demo" --lab $(if $(filter 1,$(ONCE)),--once)

.PHONY: test
test: tools build nextest ## Everything: units, end to end against a real API server, the vendors' SDKs, tools, chart
	cargo test --workspace --no-run
	@$(tools); $(lab); $(openclaw); export PATH="$$(hack/cargo-tool.sh cargo-nextest):$$PATH" MOORAGE_SIM_BIN="$(abspath $(target))/debug/moorage-sim"; \
	hack/side-by-side.sh \
		units 'cargo nextest run --workspace --no-fail-fast; cargo test --workspace --doc' \
		e2e 'cargo test --workspace --test e2e; crates/sim/sdk-tests/run.sh; hack/tools/test.sh; hack/test-chart.sh'
	@SEEDS=30000 make --no-print-directory simulate
	@$(tools); $(lab); if [[ $${MOORAGE_ROOTFS:-} ]]; then make --no-print-directory agent; $(programs); $(older); fi; \
	cargo test --workspace --test lab

.PHONY: check
check: nextest ## The daily loop: formatting, clippy, and all tests that need no server
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@PATH="$$(hack/cargo-tool.sh cargo-nextest):$$PATH" cargo nextest run --workspace --lib --test generated

.PHONY: simulate
simulate: ## SEEDS=N lives of the operator in a model world (100000 unless told); SEED=n replays one
	@cargo test --quiet -p moorage-simulation --features simulation --test simulation

.PHONY: bundle
bundle: build ## The archives of OpenClaw and Node.js that the lab installs (cached); prints their folder
	@MOORAGE_BIN="$(abspath $(target))/debug/moorage" hack/openclaw-bundle.sh

.PHONY: agent
agent: ## The agent as it goes to servers: static, small, at most 10 MB; prints where it is and its size
	@hack/check-agent.sh "$$(hack/static.sh moorage-agent)"

.PHONY: connector
connector: ## What stands in for cloudflared on servers of the lab where that is missing, static
	@RUSTFLAGS="-C target-feature=+crt-static" cargo build -p moorage-sim --bin moorage-sim --profile stand-in \
		--target "$(static_target)" --target-dir "$(target)/static"

.PHONY: image
image: ## The operator's image as an OCI layout, without a daemon; ARCH=amd64,arm64
	@hack/image.sh $(if $(ARCH),--arch $(ARCH))

.PHONY: release
release: ## All files of a release for both architectures, with their lists and checksums; nothing is uploaded
	@hack/release.sh

.PHONY: generate
generate: build ## CRDs from the Rust types, the Kustomize base from the chart
	@$(tools); MOORAGE_BIN="$(target)/debug/moorage" hack/generate.sh

.PHONY: check-generated
check-generated: build
	@$(tools); MOORAGE_BIN="$(target)/debug/moorage" hack/generate.sh --check

.PHONY: lint
lint: ## clippy with warnings denied, licences, banned crates, sources, advisories
	cargo clippy --workspace --all-targets -- -D warnings
	hack/deny.sh

.PHONY: fmt
fmt: ## Format the sources
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built here (the caches under ~/.cache/moorage stay)
	cargo clean

.PHONY: tools build nextest
tools:
	@hack/tools.sh >/dev/null
# Always the whole workspace: a part of it would be built with other features, and all of it again.
build:
	@cargo build --workspace --bins
nextest:
	@hack/cargo-tool.sh cargo-nextest >/dev/null
