//! The committed header is what the source says.

use std::path::Path;

/// Run with `UBCCL_WRITE_HEADER=1` to write it.
#[test]
fn the_committed_header_is_what_the_source_says() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).expect("cbindgen.toml parses");
    let mut generated = Vec::new();
    cbindgen::generate_with_config(crate_dir, config).expect("the source parses").write(&mut generated);
    let generated = String::from_utf8(generated).expect("a header is text");
    let path = crate_dir.join("../include/ubccl.h");
    if std::env::var_os("UBCCL_WRITE_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("include/ubccl.h is there");
    assert!(
        committed == generated,
        "include/ubccl.h is stale: UBCCL_WRITE_HEADER=1 cargo test -p ubccl-ffi --test header"
    );
}
