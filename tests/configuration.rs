//! The documents say what the table of settings says.

use std::path::Path;
use ubccl::settings::{self, SETTINGS};

/// Run with `UBCCL_WRITE_DOCS=1` to write it.
#[test]
fn the_page_on_configuration_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let generated = settings::markdown();
    if std::env::var_os("UBCCL_WRITE_DOCS").is_some() {
        std::fs::write(&path, &generated).expect("the page can be written");
    }
    let committed = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    assert!(
        committed == generated,
        "docs/configuration.md is stale: UBCCL_WRITE_DOCS=1 cargo test -p ubccl --test configuration"
    );
}

/// A variable that a document or a help text names exists.
#[test]
fn documents_name_no_variable_that_does_not_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for document in ["README.md", "ARCHITECTURE.md", "ffi/src/lib.rs", "cli/src/args.rs", "cli/src/bench.rs"]
    {
        let text = std::fs::read_to_string(root.join(document)).expect("the document is there");
        let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in text.split(|c| !is_inside(c)).filter(|word| word.starts_with("UBCCL_")) {
            let is_known = SETTINGS.iter().any(|setting| setting.variable == word);
            // The C interface has constants that begin alike; they stand in its source as such.
            let is_constant = document.starts_with("ffi/") && !text.contains(&format!("`{word}`"));
            let is_declared = text.contains(&format!("pub const {word}"));
            assert!(is_known || is_constant || is_declared, "{document} names {word}");
            named += usize::from(is_known);
        }
    }
    assert!(named >= 5, "only {named} variables are named at all");
}
