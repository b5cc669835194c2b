//! Generates the bindings of `include/kubehose_host.h` at build time.

use std::env;
use std::path::PathBuf;

fn main() {
    let header = "../include/kubehose_host.h";
    println!("cargo:rerun-if-changed={header}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("bindings.rs");
    bindgen::Builder::default()
        .header(header)
        .allowlist_file(".*kubehose_host\\.h")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .layout_tests(true)
        .prepend_enum_name(false)
        .generate()
        .expect("bindgen reads include/kubehose_host.h; it needs libclang: apt-get install libclang-dev, or set LIBCLANG_PATH")
        .write_to_file(out)
        .expect("OUT_DIR can be written");
}
