#!/bin/sh
# dist/: the plugin and the command for glibc 2.26 (Amazon Linux 2) and newer, stripped, with checksums.
#
# Zig's stubs of the C library replace the old system's; the binaries are checked before they are published.
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
# Kernels of arm64 have pages of up to 64 KiB: what is aligned to less does not load there.
case $target in
    aarch64-*)
        for file in "$out/libkubehose.so" "$out/kubehose"; do
            for alignment in $(readelf -lW "$file" | awk '$1 == "LOAD" { print $NF }'); do
                if [ $((alignment)) -lt 65536 ]; then
                    say "$file: a segment is aligned to $alignment, less than 64 KiB"
                    exit 1
                fi
            done
            say "$file: every segment is aligned to 64 KiB or more"
        done
        ;;
esac
size=$(wc -c <"$out/libkubehose.so")
if [ "$size" -gt "$most_bytes" ]; then
    say "libkubehose.so has $size bytes, more than $most_bytes: see what has come in with cargo bloat"
    exit 1
fi
if [ "$target" = "$(rustc -vV | sed -n 's/^host: //p')" ]; then
    "$out/kubehose" --version
fi

# The SBOMs. The tool is not installed automatically, because it takes minutes to build.
if cargo cyclonedx --version >/dev/null 2>&1; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
    export SOURCE_DATE_EPOCH
    cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps --target "$target"
    # Names of crates of the workspace hold the folder that they were built in.
    sed "s#file://$PWD#file:///kubehose#g" kubehose_cdylib-rlib.cdx.json >"$out/libkubehose.so.cdx.json"
    sed "s#file://$PWD#file:///kubehose#g" cli/kubehose_bin.cdx.json >"$out/kubehose.cdx.json"
    rm kubehose_cdylib-rlib.cdx.json cli/kubehose_bin.cdx.json local/kubehose-host_bin.cdx.json
else
    say "no SBOM is written, because cargo-cyclonedx is missing: cargo install --locked cargo-cyclonedx, then make dist again"
fi

(cd "$out" && sha256sum -- * >SHA256SUMS)
say "$out:"
cat "$out/SHA256SUMS"
