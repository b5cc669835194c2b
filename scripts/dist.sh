#!/bin/sh
# dist/: the plugin and the command line for every glibc from 2.26 on (Amazon Linux 2), stripped, with their sums.
#
# Zig's C library stubs stand in for the old system; the binaries are looked into before they count as made.
set -eu
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_build

target=${1:-x86_64-unknown-linux-gnu}
glibc=2.26
most_bytes=12000000

if ! command -v cargo-zigbuild >/dev/null; then
    make_venv
    [ -x .venv/bin/cargo-zigbuild ] || .venv/bin/pip install -q --disable-pip-version-check cargo-zigbuild ziglang
    PATH=$PWD/.venv/bin:$PATH
    export PATH
fi

CARGO_PROFILE_RELEASE_STRIP=symbols cargo zigbuild --release --locked --target "$target.$glibc" \
    --package kubehose --package kubehose-cli

made=target/$target/release
out=dist/kubehose-$target
rm -rf "$out"
mkdir -p "$out"
cp "$made/libkubehose.so" "$made/kubehose" examples/images/plugins.conf LICENSE "$out/"

scripts/check-glibc "$glibc" "$out/libkubehose.so" "$out/kubehose"
size=$(wc -c <"$out/libkubehose.so")
if [ "$size" -gt "$most_bytes" ]; then
    say "libkubehose.so has $size bytes, more than $most_bytes: see what has come in with cargo bloat"
    exit 1
fi
if [ "$target" = "$(rustc -vV | sed -n 's/^host: //p')" ]; then
    "$out/kubehose" --version
fi

# What is in it, for those who must know. The tool is not installed by the way: it takes minutes to build.
if cargo cyclonedx --version >/dev/null 2>&1; then
    cargo cyclonedx --format json --target "$target" --override-filename kubehose.cdx >/dev/null
    cp kubehose.cdx.json cli/kubehose.cdx.json "$out/" 2>/dev/null || cp kubehose.cdx.json "$out/"
    find . -name kubehose.cdx.json -not -path './dist/*' -not -path './target/*' -delete
else
    say "no SBOM written, for want of cargo-cyclonedx: cargo install cargo-cyclonedx"
fi

(cd "$out" && sha256sum -- * >SHA256SUMS)
say "$out:"
cat "$out/SHA256SUMS"
