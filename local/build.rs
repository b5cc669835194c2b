//! Makes `kubehose-host` export the host's functions, because plugins look them up with `dlsym(RTLD_DEFAULT, …)`.

fn main() {
    println!("cargo:rustc-link-arg-bin=kubehose-host=-rdynamic");
    println!("cargo:rerun-if-changed=build.rs");
}
