//! `src/bindings.rs` is what bindgen makes of `include/kubehose_host.h`. bindgen needs libclang, a build of the plugin does not.
//!
//! After a change of the header: `UPDATE_BINDINGS=1 cargo test -p fluent-bit-sys`.
#![allow(clippy::expect_used, reason = "a test; clippy.toml sees only the test functions")]

use std::path::PathBuf;

const HEADER: &str = "../include/kubehose_host.h";
const BINDINGS: &str = "src/bindings.rs";

/// Whether bindgen will find libclang, which it loads itself; without it, it panics.
fn has_libclang() -> bool {
    let named = std::env::var("LIBCLANG_PATH").map(PathBuf::from).into_iter();
    let usual = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let llvm = (10..40).map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/lib")));
    named.chain(usual.iter().map(PathBuf::from)).chain(llvm).any(|folder| {
        let mut names = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.file_name());
        // libclang-cpp.so is another library.
        names.any(|name| {
            let name = name.to_string_lossy();
            name.strip_prefix("libclang").is_some_and(|rest| !rest.starts_with("-cpp") && rest.contains(".so"))
        })
    })
}

#[test]
fn the_committed_bindings_are_what_bindgen_makes_of_the_header() {
    if !has_libclang() {
        eprintln!(
            "not run, because libclang is missing: the comparison of {BINDINGS} with {HEADER}; install libclang1"
        );
        return;
    }
    let made = bindgen::Builder::default()
        .header(HEADER)
        .allowlist_file(".*kubehose_host\\.h")
        .rust_target(bindgen::RustTarget::stable(85, 0).unwrap_or_else(|_| unreachable!("1.85 is known")))
        .rust_edition(bindgen::RustEdition::Edition2024)
        .layout_tests(true)
        .prepend_enum_name(false)
        .disable_header_comment()
        .formatter(bindgen::Formatter::Prettyplease)
        .generate()
        .expect("bindgen reads the header")
        .to_string();
    if std::env::var_os("UPDATE_BINDINGS").is_some() {
        std::fs::write(BINDINGS, &made).expect("the bindings can be written");
    }
    let committed = std::fs::read_to_string(BINDINGS).expect("the bindings can be read");
    assert_eq!(committed, made, "the header has changed: run `UPDATE_BINDINGS=1 cargo test -p fluent-bit-sys`");
}
