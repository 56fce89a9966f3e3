#!/bin/sh
# Makes sure that there are a C compiler and a Rust toolchain: what `cargo xtask setup` cannot install, because it is
# built with them. Everything else (components, Debian packages, tools) is done there.
# Prints nothing when all is well; otherwise installs, as root on Debian, or says what to run and exits 1.
set -eu

as_root() { [ "$(id -u)" = 0 ]; }
has() { command -v "$1" >/dev/null 2>&1; }

install_packages() {
    echo "setup: installing $*" >&2
    apt-get update --quiet=2 >&2
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "$@" >&2
}

# Rust links with the C compiler.
if ! has cc; then
    if as_root && has apt-get; then
        install_packages gcc libc6-dev
    else
        echo "error: there is no C compiler, and Rust links with it" >&2
        echo "hint: run 'sudo apt-get update && sudo apt-get install --yes gcc libc6-dev'" >&2
        exit 1
    fi
fi

if has cargo; then
    exit 0
fi
cargo_home="${CARGO_HOME:-$HOME/.cargo}"
if [ -x "$cargo_home/bin/cargo" ]; then
    echo "error: Rust is installed in $cargo_home/bin, which is not on the PATH" >&2
    echo "hint: run '. \"$cargo_home/env\"' and try again" >&2
    exit 1
fi
# Debian packages rustup since version 13; the cargo of version 12 is too old to build Nagi.
if as_root && has apt-get && apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
    install_packages rustup ca-certificates
    exit 0
fi
echo "error: Nagi is built with Rust, and there is no 'cargo' on this machine" >&2
if ! has curl; then
    echo "hint: first run 'sudo apt-get update && sudo apt-get install --yes curl ca-certificates'" >&2
fi
echo "hint: run 'curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none'" >&2
echo "hint: then '. \"$cargo_home/env\"' and try again; rustup fetches the version that rust-toolchain.toml names" >&2
exit 1
