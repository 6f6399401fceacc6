# A thin front for Meson and the scripts in tools/. `./dev` has the verbs for daily work.
BUILD ?= build
ARGS ?=

.PHONY: all build setup check run bench install clean

all: build

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

# Installs the Debian packages that are missing; does nothing when all are there.
setup:
	@tools/setup.sh

$(BUILD)/build.ninja: | setup
	@meson setup $(BUILD) .

# Every tier of tests. The last line is `N passed, N failed, N skipped`; the exit status tells.
check: setup build
	@tests/run.py --build $(BUILD) $(ARGS)

# Boots Debian's cloud kernel: a shell on a terminal, a self-check without one.
run: setup build
	@tools/run.sh $(BUILD) $(ARGS)

bench: setup build
	@bench/run.sh $(BUILD) $(ARGS)

install: build
	@meson install -C $(BUILD)

clean:
	@rm -rf build build-*
