//! The only code generation of the workspace: `proto/` becomes Rust. protox reads the files, so no
//! `protoc` is needed on the machine that builds.

use std::error::Error;
use std::path::Path;

/// Files below `proto/`.
const FILES: &[&str] = &["runtime/v1/api.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let files = protox::compile(FILES, [&proto])?;
    tonic_prost_build::configure()
        // Ordered maps: the same message always has the same bytes and the same text.
        .btree_map(".")
        // Its Debug is written by hand: passwords must not reach a log.
        .skip_debug([".runtime.v1.AuthConfig"])
        .build_server(false)
        .compile_fds(files.clone())?;
    // What strangers send is decoded within bounds; what our own servers answer needs none.
    let servers = Path::new(&std::env::var("OUT_DIR")?).join("servers");
    std::fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::codec::Bounded")
        .extern_path(".runtime.v1", "crate::runtime::v1")
        .out_dir(servers)
        .compile_fds(files)?;
    Ok(())
}
