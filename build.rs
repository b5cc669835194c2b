//! Link arguments of the plugin, and the revision that it reports.

use std::process::Command;

fn main() {
    // The image stays mapped after the host's dlclose: a thread of ours that ends late, or the host's own exit handlers,
    // must still find its code.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libkubehose.so");
    let revision = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=KUBEHOSE_REVISION={revision}");
    // In a worktree .git is a file, and a path that is not there would build everything again each time.
    for name in ["HEAD", "refs"] {
        let path = Command::new("git").args(["rev-parse", "--git-path", name]).output();
        if let Some(path) = path.ok().filter(|out| out.status.success()) {
            println!("cargo:rerun-if-changed={}", String::from_utf8_lossy(&path.stdout).trim());
        }
    }
}
