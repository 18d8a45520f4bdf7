//! What a process leaves behind, or does not.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What this process holds that could outlive it: abstract sockets by name, and files (open or mapped) in the places
/// where temporary and shared files live.
pub(crate) fn held() -> Value {
    let targets: Vec<String> = links("/proc/self/fd");
    let mapped = fs::read_to_string("/proc/self/maps").expect("Linux");
    let mapped = mapped.lines().filter_map(|line| line.split_once('/').map(|(_, path)| format!("/{path}")));
    let is_left_over =
        |path: &String| ["/dev/shm", "/tmp", "/run", "/var/tmp"].iter().any(|at| path.starts_with(at));
    // The test program itself may have been built into one of these places.
    let program = std::env::current_exe().expect("this program has a path").display().to_string();
    let files: BTreeSet<String> = targets.iter().cloned().chain(mapped).filter(is_left_over).collect();
    // So may the files that the tests' output goes to.
    let standard: Vec<String> = (0..3).filter_map(|fd| link(&format!("/proc/self/fd/{fd}"))).collect();
    let is_ours = |path: &String| *path != program && !standard.contains(path);
    let files: Vec<String> = files.into_iter().filter(is_ours).collect();
    let own: BTreeSet<String> = targets.iter().filter_map(|target| inode(target)).collect();
    let sockets: Vec<String> = abstract_sockets()
        .into_iter()
        .filter(|(inode, _)| own.contains(inode))
        .map(|(_, name)| name)
        .collect();
    json!({ "files": files, "sockets": sockets })
}

/// Panics if anything that [`held`] told is still there.
pub(crate) fn check_gone(held: &Value) {
    assert_eq!(held["files"], json!([]), "a rank used files");
    let names: BTreeSet<String> = abstract_sockets().into_iter().map(|(_, name)| name).collect();
    for socket in held["sockets"].as_array().expect("a list") {
        assert!(!names.contains(socket.as_str().expect("a name")), "the socket {socket} is still there");
    }
}

/// Descriptors of this process through which something of ours could be kept alive.
pub(crate) fn descriptors() -> BTreeSet<String> {
    let is_ours = |target: &String| target.contains("ubccl") || target.starts_with("socket:");
    links("/proc/self/fd").into_iter().filter(is_ours).collect()
}

fn links(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("Linux").flatten();
    entries.filter_map(|entry| link(entry.path())).collect()
}

fn link(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_link(path).ok()?.display().to_string())
}

fn inode(target: &str) -> Option<String> {
    Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// Inode and name of every abstract socket of this network namespace.
fn abstract_sockets() -> Vec<(String, String)> {
    // Other programs' names may be any bytes.
    let table = String::from_utf8_lossy(&fs::read("/proc/net/unix").expect("Linux")).into_owned();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.get(7).filter(|name| name.starts_with('@'))?;
        Some((fields[6].to_owned(), (*name).to_owned()))
    };
    table.lines().skip(1).filter_map(row).collect()
}
