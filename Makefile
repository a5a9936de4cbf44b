# Tests that every change must pass, benches, packages, and a demonstration. Needs a Rust toolchain with rustfmt and clippy.

# Tests wait for clocks, servers and clients nine tenths of the time, so one thread a core leaves the cores idle. More than six
# threads end no sooner, because the longest tests decide, and delay each other's tests.
TEST_THREADS = 6

.PHONY: soak test test-long test-sdk test-clients test-pusher test-console test-ops test-packaging bench instructions lines demo deb package-files

test:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo rustc --lib --profile check -- --cfg fuzzing -D warnings # for the fuzz target hub_actions
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace
	benches/instructions.sh
	cargo test --workspace --profile release-test -- --test-threads $(TEST_THREADS)
	# The last tests are built while others wait for sockets, browsers and clocks.
	nice -n 19 cargo test --workspace --lib --bins --no-run & build=$$!; \
	{ $(MAKE) test-sdk test-clients test-pusher test-console test-ops test-packaging && \
	SOAK_SECONDS=60 target/release-test/loadtest soak && wait $$build; } || { kill $$build 2>/dev/null; exit 1; }
	cargo test --workspace --lib --bins # with debug assertions and overflow checks

# Tests the JavaScript client against the server of the profile release-test.
test-sdk:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast sdk/js/test.sh

# Tests that `test` leaves out because they are long, draw their inputs or download much: new inputs for fuzz targets, property
# tests and simulations; faults planted in the hub, which its simulation must find; applications built with the JavaScript client by
# esbuild, webpack, Vite and tsc, in Node 20, 22 and 24; that client in a hidden page of Chromium; and the console in Firefox and WebKit.
test-long:
	CORECAST_SEED=$$(date +%s) CORECAST_RUNS=1000000 cargo test --workspace --profile release-test --test fuzz
	CORECAST_RUNS=2000 PROPTEST_RNG_SEED=$$(date +%s) PROPTEST_CASES=10000 cargo test --workspace --profile release-test --lib
	tests/planted/run.py
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast sdk/js/test-consumers.sh
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast tests/console/run.sh firefox webkit

# Tests other client libraries, and RFC 6455 case by case, against the same binary.
test-clients:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast tests/clients/run.sh

# Tests Pusher's client libraries, in Node, Python, Chromium, Firefox and WebKit, against the same binary.
test-pusher:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast tests/pusher/run.sh

# Tests the console in Chromium, against the same binary.
test-console:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast tests/console/run.sh

# Checks alert rules and metrics with promtool.
test-ops:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast ops/check.sh

# Checks the Debian package, man pages, completions, the unit and the Dockerfile.
test-packaging:
	CORECAST_BIN=$(CURDIR)/target/release-test/corecast packaging/check.sh

# Runs a checked load beside faults for SOAK_SECONDS (600). Fails if anything is lost, left over or not counted.
soak:
	cargo build --workspace --bins --profile release-test
	target/release-test/loadtest soak

bench:
	cargo bench --workspace

# Counts instructions of the data path and compares them with the stored counts; `benches/instructions.sh --store` stores.
instructions:
	benches/instructions.sh

# Counts product lines: without tests, comments and blank lines.
lines:
	benches/lines.py

# Starts a server and a subscriber, and publishes one message.
demo:
	cargo build --bin corecast --profile release-test # without LTO, and what it builds serves make test
	@set -eu; dir=$$(mktemp -d); bin=target/release-test/corecast; export CORECAST_ADMIN_SOCKET=$$dir/admin.sock; \
	$$bin serve --listen 127.0.0.1:0 --http 127.0.0.1:0 --log warn 2> $$dir/log & server=$$!; \
	trap 'kill $$server; wait $$server || true; rm -r '$$dir EXIT; \
	until grep -q 'listening on' $$dir/log; do sleep 0.1; kill -0 $$server; done; cat $$dir/log; \
	address=$$(sed -n 's/.*listening on \([^ ]*\).*/\1/p' $$dir/log); \
	$$bin subscribe user:13 --count 1 --url ws://$$address & subscriber=$$!; \
	until $$bin channel user:13 --json | grep -q '"subscribers":1'; do sleep 0.1; done; \
	$$bin publish user:13 order.paid '{"id":42}'; \
	wait $$subscriber

# Builds the Debian package: target/debian/corecast_*.deb. Needs `cargo install cargo-deb`.
deb:
	cargo build --release --bin corecast
	$(MAKE) package-files
	cargo deb --no-build --strip

# Files of the package that the binary generates.
PACKAGE_BIN = target/release/corecast
PACKAGE_DIR = target/package
package-files:
	mkdir -p $(PACKAGE_DIR)
	$(PACKAGE_BIN) man $(PACKAGE_DIR)/man
	$(PACKAGE_BIN) completions bash > $(PACKAGE_DIR)/corecast.bash
	$(PACKAGE_BIN) completions zsh > $(PACKAGE_DIR)/_corecast
	$(PACKAGE_BIN) completions fish > $(PACKAGE_DIR)/corecast.fish
