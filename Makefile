# What a person runs. `make help` lists it.

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
# Where systemd looks for units, sysusers.d and tmpfiles.d.
SYSTEMD_DIR ?= $(PREFIX)/lib

BIN_DIR = $(PREFIX)/bin
DOC_DIR = $(PREFIX)/share/doc/tidegate
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/tidegate
UNITS = tidegate-edge.service tidegate-registry.service
INSTALL = install -D

# A toolchain from rustup goes before a distribution's, which is older.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help run build test bench fmt install uninstall

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: build ## build Tidegate and run it from ./tidegate-data (ARGS="--https 0.0.0.0:8443 …")
	@exec $(BINARY) up $(ARGS)

build: ## build the release binary, installing Debian's build tools where they are missing
	@packaging/build-tools
	@TIDEGATE_COMMIT=$$(git rev-parse --short=12 HEAD 2>/dev/null) cargo build --release --locked

test: ## run all checks and tests (installs the real clients they use)
	@tests/run

bench: ## measure against other registries, and write what came out into docs/
	@benches/run

fmt: ## format the code
	@cargo fmt --all

install: ## install binary, units, config and users (PREFIX, DESTDIR, SYSCONFDIR)
	@test -x $(BINARY) || { echo 'Run "make build" first (not as root, if Rust is not root'\''s).' >&2; exit 1; }
	@$(INSTALL) -m 755 $(BINARY) $(DESTDIR)$(BIN_DIR)/tidegate
	@for unit in $(UNITS); do \
	    sed -e 's|/usr/local/bin|$(BIN_DIR)|; s|/usr/local/share/doc/tidegate|$(DOC_DIR)|; s|/etc/tidegate|$(SYSCONFDIR)/tidegate|' \
	        systemd/$$unit | $(INSTALL) -m 644 /dev/stdin $(DESTDIR)$(SYSTEMD_DIR)/systemd/system/$$unit || exit; \
	done
	@$(INSTALL) -m 644 packaging/sysusers.conf $(DESTDIR)$(SYSTEMD_DIR)/sysusers.d/tidegate.conf
	@sed 's|/etc/tidegate|$(SYSCONFDIR)/tidegate|' packaging/tmpfiles.conf \
	    | $(INSTALL) -m 644 /dev/stdin $(DESTDIR)$(SYSTEMD_DIR)/tmpfiles.d/tidegate.conf
	@$(INSTALL) -m 644 conf/edge.toml $(DESTDIR)$(DOC_DIR)/edge.toml
	@for page in access certificates monitoring operating; do \
	    $(INSTALL) -m 644 docs/$$page.md $(DESTDIR)$(DOC_DIR)/$$page.md || exit; \
	done
	@for file in dashboard.json prometheus.yml rules.yml rules_test.yml; do \
	    $(INSTALL) -m 644 docs/monitoring/$$file $(DESTDIR)$(DOC_DIR)/monitoring/$$file || exit; \
	done
	@if [ -e $(DESTDIR)$(SYSCONFDIR)/tidegate/edge.toml ]; then \
	    echo "kept $(DESTDIR)$(SYSCONFDIR)/tidegate/edge.toml"; \
	else \
	    $(INSTALL) -m 644 conf/edge.toml $(DESTDIR)$(SYSCONFDIR)/tidegate/edge.toml; \
	fi
	@DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' packaging/after-install

uninstall: ## remove what install put there; config, keys, users and images stay
	@DESTDIR='$(DESTDIR)' packaging/before-uninstall
	@rm -f $(DESTDIR)$(BIN_DIR)/tidegate $(UNITS:%=$(DESTDIR)$(SYSTEMD_DIR)/systemd/system/%)
	@rm -f $(DESTDIR)$(SYSTEMD_DIR)/sysusers.d/tidegate.conf $(DESTDIR)$(SYSTEMD_DIR)/tmpfiles.d/tidegate.conf
	@rm -rf $(DESTDIR)$(DOC_DIR)
	@[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
	@DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' packaging/after-uninstall
