# shellcheck shell=sh
# To be sourced, from the root of the repository: installs what a build or the tests need and what is not there.
#
# need_build     a C compiler to link with
# need_component a part of the Rust toolchain (rustfmt, clippy), which minimal ones lack; without it the check says that it did not run
# need_libclang  libclang for bindgen; without it the test that needs it says that it did not run
# need_curl      curl, which a credential_process of the tests calls
# need_proxy     a proxy (tinyproxy); without it the tests that need it say that they did not run
# need_venv      .venv with what tests/requirements.txt names; without it the tests that need it say that they did not run

say() {
    printf '%s\n' "$*" >&2
}

# Installs packages, as root or with sudo that asks nothing.
apt() {
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=sudo
    else
        return 1
    fi
    say "installing $* with apt-get"
    $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq -y "$@" >&2
}

need_build() {
    if ! command -v cargo >/dev/null; then
        say "cargo is missing: install Rust from https://rustup.rs, then try again"
        return 1
    fi
    if ! command -v cc >/dev/null && ! apt build-essential; then
        say "a C compiler to link with (cc) is missing: install build-essential, gcc or clang, then try again"
        return 1
    fi
}

# Whether `cargo $1` works, which the toolchain's component $2 brings.
need_component() {
    cargo "$1" --version >/dev/null 2>&1 && return 0
    command -v rustup >/dev/null || return 1
    say "adding $2 to the Rust toolchain"
    rustup component add "$2" >&2 && cargo "$1" --version >/dev/null 2>&1
}

# Where bindgen looks for libclang. libclang-cpp.so, or llvm-config without it, is of no use to it.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    for file in /usr/lib/llvm*/lib/libclang[-.]* /usr/lib*/libclang[-.]* /usr/lib/*/libclang[-.]* /usr/local/lib*/libclang[-.]*; do
        case $file in
            *libclang-cpp* | *'*'*) ;;
            *.so*) return 0 ;;
        esac
    done
    return 1
}

# PyPI's libclang comes without headers; include/kubehose_host.h includes none.
pypi_libclang() {
    for folder in .venv/lib/python3*/site-packages/clang/native; do
        if [ -d "$folder" ]; then
            LIBCLANG_PATH=$PWD/$folder
            export LIBCLANG_PATH
            return 0
        fi
    done
    return 1
}

# One test alone needs it: the bindings that are kept in fluent-bit-sys/ are made anew and compared.
need_libclang() {
    has_libclang || pypi_libclang || apt libclang1 || {
        make_venv && say "installing libclang from PyPI" && .venv/bin/pip install -q libclang && pypi_libclang
    } || say "not run, because libclang is missing: the comparison of the bindings; install libclang1, or set LIBCLANG_PATH"
}

make_venv() {
    [ -x .venv/bin/pip ] && return 0
    python3 -m venv .venv >/dev/null 2>&1 && return 0
    # Debian has the module in a package of its own, and leaves half of a folder behind without it.
    rm -rf .venv
    apt python3-venv && python3 -m venv .venv
}

need_curl() {
    command -v curl >/dev/null || apt curl || say "curl is missing: the tests of credential_process fail without it; install curl"
}

need_proxy() {
    # The program alone: the package tinyproxy is a service as well.
    command -v tinyproxy >/dev/null || apt tinyproxy-bin ||
        say "not run, because tinyproxy is missing: the tests that say so; install tinyproxy-bin, or tinyproxy"
}

need_venv() {
    installed=.venv/requirements.txt
    cmp -s tests/requirements.txt "$installed" && return 0
    make_venv && say "installing tests/requirements.txt into .venv" &&
        .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt &&
        cp tests/requirements.txt "$installed" && return 0
    say "not run, because there is no Python environment (.venv): the tests that say so; install python3-venv and see that PyPI can be reached"
}
