#!/bin/sh
# Makes sure that there is a Rust toolchain, the one thing that `cargo xtask setup` cannot install because it
# is built by it. Everything else (components, Debian packages, cargo tools) is done there.
# Prints nothing when all is well; otherwise says what to run and exits 1.
set -eu

if command -v cargo >/dev/null 2>&1; then
    exit 0
fi
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
if [ -x "$cargo_home/bin/cargo" ]; then
    echo "error: Rust is installed in $cargo_home/bin, which is not on the PATH" >&2
    echo "hint: run '. \"$cargo_home/env\"' and try again" >&2
    exit 1
fi
echo "error: Nagi is built with Rust, and there is no 'cargo' on this machine" >&2
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo "; fi
if ! command -v curl >/dev/null 2>&1 || ! command -v cc >/dev/null 2>&1; then
    echo "hint: first run '${sudo}apt-get update && ${sudo}apt-get install --yes build-essential ca-certificates curl git'" >&2
fi
echo "hint: install it with 'curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none'," >&2
echo "hint: then '. \"$cargo_home/env\"' and try again; rustup fetches the version that rust-toolchain.toml names" >&2
echo "hint: (the 'cargo' package of Debian 12 is too old for this project)" >&2
exit 1
