# Everything a change must pass, and the benches. Needs a Rust toolchain with rustfmt and clippy.

.PHONY: test bench

test:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace
	cargo test --workspace
	cargo test --workspace --release

bench:
	cargo bench --workspace
