//! How the two small programs are linked: at a fixed address, because every relocated page would
//! be a private copy in each of the hundreds of shims of a node (256 KiB of 490 KiB, measured).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for program in ["crisp-shim", "crisp-holder"] {
        println!("cargo::rustc-link-arg-bin={program}=-no-pie");
    }
}
