//! Compiles `proto/` into Rust types, and into the descriptor set that the reflection service answers from.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("stolon_descriptor.bin");
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().file_descriptor_set_path(descriptors).btree_map(".").compile_protos(
        &["proto/stolon/v1/common.proto", "proto/stolon/v1/sentinel.proto", "proto/stolon/v1/admin.proto"],
        &["proto"],
    )?;
    Ok(())
}
