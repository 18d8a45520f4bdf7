//! Style that matters, as a test: which crate may use which, where `unsafe` may stand, that the indices are complete,
//! that nothing prints, that the environment is read in one place.

#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

#[path = "tidy/source.rs"]
mod source;

use serde_json::Value;
use source::{Source, blank, has_word, root, under};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The members with their storeys: a crate may use only crates of lower storeys.
/// `core ← {algorithms, transports} ← ubccl ← {ffi, cli}`.
const STOREYS: &[(&str, u32, &str)] = &[
    ("ubccl-core", 0, "core"),
    ("ubccl-algorithms", 1, "algorithms"),
    ("ubccl-transports", 1, "transports"),
    ("ubccl", 2, "src"),
    ("ubccl-ffi", 3, "ffi"),
    ("ubccl-cli", 3, "cli"),
];

/// Folders whose code ships in libraries.
const LIBRARIES: [&str; 5] = ["core/src", "algorithms/src", "transports/src", "src", "ffi/src"];

/// The files that may contain `unsafe`, with what they need it for. A file that no longer does leaves the list.
const UNSAFE: &[(&str, &str)] = &[
    (
        "core/src/endpoint.rs",
        "the contracts of `register`, `direct` and `one_pass`: whoever calls vouches for the memory",
    ),
    ("core/src/kernels/mod.rs", "kernels over addresses"),
    ("core/src/kernels/scalar.rs", "kernels over addresses"),
    ("core/src/kernels/lanes.rs", "kernels over addresses"),
    ("core/src/kernels/avx2.rs", "vector instructions"),
    ("core/src/kernels/avx512.rs", "vector instructions"),
    ("core/src/kernels/fresh.rs", "vector loads and stores over addresses"),
    ("core/src/kernels/streaming.rs", "streaming stores over addresses"),
    ("core/src/kernels/tests.rs", "calls kernels"),
    ("core/src/kernels/tests/edges.rs", "maps pages that cannot be touched; calls kernels"),
    ("core/src/kernels/tests/user.rs", "calls kernels"),
    ("core/src/kernels/user.rs", "kernels over addresses"),
    ("core/benches/kernels.rs", "calls kernels"),
    ("core/src/prefetch.rs", "an instruction that takes an address"),
    ("transports/src/host.rs", "spans become addresses; a list of addresses that crosses threads"),
    ("transports/src/local/ring.rs", "loom's cells in a model of the ring"),
    ("transports/src/local/stores.rs", "copies between addresses"),
    ("transports/src/local/publication.rs", "loom's cells in a model of publications"),
    ("transports/src/local/visit.rs", "loom's cells in a model of visits"),
    ("transports/src/optical/endpoint.rs", "implements `register`"),
    ("transports/src/optical/paced/endpoint.rs", "implements `register`; registers heads of its own"),
    ("transports/src/optical/payload.rs", "copies simulated messages from and to real memory"),
    ("transports/src/shm/channel.rs", "entries and slots that another process writes"),
    ("transports/src/shm/endpoint.rs", "implements `register`"),
    ("transports/src/shm/foreign.rs", "reads another process's memory by a system call"),
    ("transports/src/shm/heap.rs", "gives pages of shared memory back"),
    ("transports/src/shm/one_pass.rs", "combines the caller's memory and heaps that other processes write"),
    ("transports/src/shm/placement.rs", "calls mbind"),
    ("transports/src/shm/publications.rs", "hands the caller's memory on"),
    ("transports/src/shm/tests/one_pass.rs", "vouches for the memory of calls; writes as a peer does"),
    ("transports/src/shm/tests/publications.rs", "vouches for the memory of rounds"),
    ("transports/src/shm/receives.rs", "reads slots into the caller's memory"),
    ("transports/src/shm/segment.rs", "words and atomics in mapped memory"),
    ("transports/src/shm/sends.rs", "reads the caller's memory"),
    ("transports/src/shm/shelf.rs", "publications that another process writes; reads the caller's memory"),
    ("transports/src/tcp/endpoint.rs", "implements `register`"),
    ("transports/src/tcp/fold.rs", "folds out of rings and the caller's memory"),
    ("transports/src/tcp/raw.rs", "gathered system calls over the caller's memory"),
    ("transports/src/tcp/tests/mod.rs", "registers its buffers"),
    ("transports/src/shm/tests/hostile.rs", "plays a peer that writes nonsense"),
    ("transports/src/shm/tests/mod.rs", "registers its buffers"),
    ("transports/src/shm/tests/sleeping.rs", "registers its buffers"),
    ("transports/src/threads/channel.rs", "copies small messages between entries and the caller's memory"),
    ("transports/src/threads/endpoint.rs", "implements `register`"),
    ("transports/src/threads/receives.rs", "reads entries and the memory of other threads"),
    ("transports/src/threads/sends.rs", "reads the caller's memory"),
    ("transports/src/threads/tests/ends.rs", "overwrites withdrawn memory"),
    ("transports/src/threads/tests/mod.rs", "registers its buffers"),
    ("transports/src/threads/world.rs", "loom's cells in a model of withdrawing"),
    ("transports/tests/shm_processes.rs", "registers guarded memory; looks at inherited descriptors"),
    ("transports/tests/optical/harness.rs", "registers its buffers"),
    ("transports/tests/optical/memory.rs", "registers its buffers"),
    ("transports/tests/no_allocation.rs", "a counting allocator"),
    ("transports/tests/support/memory.rs", "guarded memory that endpoints write by address"),
    ("transports/tests/support/rank.rs", "registers guarded memory"),
    ("transports/tests/support/double/endpoint.rs", "implements `register`"),
    ("src/control/board.rs", "atomics in memory that processes share"),
    ("src/control/tests/processes.rs", "calls prctl"),
    ("src/engine/mod.rs", "registers the caller's buffers"),
    ("src/blocking.rs", "hands callers' buffers to the engine"),
    ("src/engine/express.rs", "hands the caller's buffers to the endpoint"),
    ("src/engine/place.rs", "registers the caller's buffers"),
    ("src/engine/tagged.rs", "issues operations on the caller's buffers"),
    ("src/engine/tests.rs", "issues operations on its buffers"),
    ("src/group/entries.rs", "passes the caller's buffers on; copies between them"),
    ("src/group/mod.rs", "passes the caller's buffers on"),
    ("src/group/owned.rs", "passes buffers on that operations own"),
    ("src/point_to_point.rs", "passes the caller's buffers on"),
    ("src/communicator.rs", "passes the caller's buffers on"),
    ("src/coalesced.rs", "passes a packed buffer on"),
    ("src/prepared.rs", "passes buffers on that prepared operations own"),
    ("src/window/direct.rs", "atomic operations on memory that other ranks write"),
    ("src/region.rs", "memory of a transport becomes slices"),
    ("src/round.rs", "hands the caller's buffers to the endpoint"),
    ("src/one_pass.rs", "hands the caller's buffers to the endpoint"),
    ("src/raw.rs", "passes pointers of other languages on"),
    ("src/sim/program/inside.rs", "issues operations on buffers that they own"),
    ("src/sim/tagged.rs", "passes simulated buffers on"),
    ("src/sim/operations.rs", "passes simulated buffers on"),
    ("tests/no_allocation.rs", "a counting allocator"),
    ("tests/usage.rs", "a counting allocator"),
    ("tests/no_system_call.rs", "installs a seccomp filter"),
    ("ffi/src/boundary.rs", "reads and writes what pointers of C lead to"),
    ("ffi/src/codes.rs", "exported functions"),
    ("ffi/src/collectives/equal.rs", "exported functions"),
    ("ffi/src/collectives/grouped.rs", "exported functions"),
    ("ffi/src/collectives/mod.rs", "passes the buffers of C on"),
    ("ffi/src/collectives/peers.rs", "exported functions"),
    ("ffi/src/collectives/prepared.rs", "exported functions"),
    ("ffi/src/collectives/rooted.rs", "exported functions"),
    ("ffi/src/collectives/tables.rs", "exported functions"),
    ("ffi/src/collectives/tagged.rs", "exported functions"),
    ("ffi/src/comm.rs", "exported functions"),
    ("ffi/src/error.rs", "exported functions"),
    ("ffi/src/group.rs", "exported functions"),
    ("ffi/src/memory.rs", "exported functions"),
    ("ffi/src/ops.rs", "calls functions of C"),
    ("ffi/src/prepared.rs", "exported functions"),
    ("ffi/src/queries.rs", "exported functions"),
    ("ffi/src/split.rs", "exported functions"),
    ("ffi/src/start.rs", "exported functions"),
    ("ffi/src/work.rs", "exported functions"),
];

/// The files that may read the environment.
const READS_ENVIRONMENT: &[&str] = &["src/config/mod.rs"];

/// A file longer than this has a second concept in it.
const MOST_LINES: usize = 600;

#[test]
fn crates_use_only_lower_storeys() {
    let storey = |name: &str| STOREYS.iter().find(|row| row.0 == name).map(|row| row.1);
    let mut wrong = Vec::new();
    let packages = packages();
    for package in &packages {
        let name = text(&package["name"]);
        let Some(own) = storey(name) else {
            wrong.push(format!("{name} has no storey in this test"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let needed = text(&dependency["name"]);
            if storey(needed).is_some_and(|storey| storey >= own) {
                wrong.push(format!("{name} must not depend on {needed}"));
            }
        }
    }
    assert_eq!(packages.len(), STOREYS.len(), "every member of the workspace, and no other, has a storey");
    assert_none("arrows", &wrong);
}

/// The members of the workspace, as cargo sees them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(cargo).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("metadata lists packages").clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata gives text here")
}

#[test]
fn unsafe_stands_in_named_files_only() {
    let sources = everything();
    let found: BTreeSet<&str> =
        sources.iter().filter(|s| contains_unsafe(s)).map(|s| s.path.as_str()).collect();
    let listed: BTreeSet<&str> = UNSAFE.iter().map(|row| row.0).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert_none("`unsafe` in files that are not on the list (move it, or list the file with a reason)", &new);
    assert_none("files on the list without `unsafe`", &gone);
}

fn contains_unsafe(source: &Source) -> bool {
    source.code.iter().any(|line| has_word(line, "unsafe"))
}

#[test]
fn every_unsafe_block_has_its_safety_comment() {
    let mut bare = Vec::new();
    for source in everything().iter().filter(|source| contains_unsafe(source)) {
        let opens = |line: &str| line.contains("unsafe {") || line.contains("unsafe impl");
        let blocks = (0..source.code.len()).filter(|&at| opens(&source.code[at]));
        bare.extend(
            blocks.filter(|&at| !is_justified(source, at)).map(|at| format!("{}:{}", source.path, at + 1)),
        );
    }
    assert_none("`unsafe` without `// SAFETY:` within three lines above", &bare);
}

/// Whether a comment within three lines above, or on the line itself, belongs to a block that says `SAFETY:`.
fn is_justified(source: &Source, at: usize) -> bool {
    let is_comment = |at: usize| source.lines[at].trim_start().starts_with("//");
    let says_so = |at: usize| source.lines[at].contains("SAFETY:");
    if says_so(at) {
        return true;
    }
    let Some(mut above) = (at.saturating_sub(3)..at).rev().find(|&above| is_comment(above)) else {
        return false;
    };
    while !says_so(above) && above > 0 && is_comment(above - 1) {
        above -= 1;
    }
    says_so(above)
}

#[test]
fn the_indices_are_complete() {
    let algorithms = ubccl_algorithms::index().iter().map(|a| a.descriptor().name).collect();
    check_index("algorithms/src", "AlgorithmDescriptor", algorithms);
    let descriptors = ubccl_transports::index().iter().map(|t| t.descriptor());
    let names = descriptors.flat_map(|d| std::iter::once(d.name).chain(d.alias)).collect();
    check_index("transports/src", "TransportDescriptor", names);
}

/// What makes descriptors at run time, of what it is asked for: no line of the index.
const MADE_ON_DEMAND: [&str; 1] = ["composition"];

/// Every module that makes a descriptor is a line of the index, every line is such a module, no name stands twice.
fn check_index(folder: &str, descriptor: &str, names: Vec<&str>) {
    let library = Source::read(&root().join(folder).join("lib.rs"));
    let entries: BTreeSet<String> = index_entries(&library).into_iter().collect();
    let makes_one = |line: &String| line.contains(&format!("{descriptor} {{")) && !line.contains("struct ");
    let makers = under(folder).into_iter().filter(|source| source.shipped().iter().any(makes_one));
    let modules = makers.map(|source| module_of(folder, &source.path));
    let modules: BTreeSet<String> =
        modules.filter(|module| !MADE_ON_DEMAND.contains(&module.as_str())).collect();
    assert_eq!(entries, modules, "{folder}: modules in the index (left), modules with a descriptor (right)");
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(distinct.len(), names.len(), "{folder}: a name stands twice among {names:?}");
    assert!(!names.is_empty(), "{folder}: the index is empty");
}

/// The modules of `index! { module::TYPE, … }`, or of `index! { module: TYPES; … }`.
fn index_entries(library: &Source) -> Vec<String> {
    let code = library.code.join("\n");
    let (_, body) = code.split_once("\nindex!").expect("a library has its index");
    let (_, body) = body.split_once('{').expect("an index has a body");
    let (body, _) = body.split_once('}').expect("an index ends");
    let module = |entry: &str| entry.split_once(':').map(|(module, _)| module.trim().to_owned());
    let between = if body.contains(';') { ';' } else { ',' };
    body.split(between).filter_map(module).collect()
}

/// The top-level module of a file: `ring.rs` or `shm/ring.rs` to `ring` or `shm`.
fn module_of(folder: &str, path: &str) -> String {
    let inside = path.strip_prefix(folder).expect("it is under the folder").trim_start_matches('/');
    inside.split('/').next().expect("a path has parts").trim_end_matches(".rs").to_owned()
}

#[test]
fn libraries_neither_print_nor_exit() {
    let forbidden = ["println!", "eprintln!", "print!", "eprint!", "dbg!", "process::exit", "process::abort"];
    let mut wrong = Vec::new();
    for source in LIBRARIES.into_iter().flat_map(under).filter(|source| !source.is_test()) {
        for word in forbidden {
            wrong
                .extend(source.places(source.shipped(), word).iter().map(|place| format!("{place}: {word}")));
        }
    }
    assert_none("printing or exiting in a library", &wrong);
}

#[test]
fn libraries_log_to_a_named_subsystem() {
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| format!("tracing::{level}!("));
    let known = |text: &str| {
        ubccl::logging::SUBSYSTEMS.iter().any(|row| text.contains(&format!("target: \"{}\"", row.1)))
            || text.contains("target: VERSION")
    };
    let (mut wrong, mut events) = (Vec::new(), 0);
    for source in LIBRARIES.into_iter().flat_map(under).filter(|source| !source.is_test()) {
        let logs = |at: &usize| levels.iter().any(|level| source.shipped()[*at].contains(level.as_str()));
        for at in (0..source.shipped().len()).filter(logs) {
            events += 1;
            // The target is the first argument: on the same line, or alone on the next.
            if !known(&source.lines[at..source.lines.len().min(at + 2)].concat()) {
                wrong.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    assert_none("events without `target: \"ubccl::…\"` of logging::SUBSYSTEMS", &wrong);
    assert!(events > 10, "only {events} events were found");
}

#[test]
fn the_environment_is_read_in_one_place() {
    let words = ["env::var", "env::var_os", "env::vars", "env::vars_os", "env::set_var", "env::remove_var"];
    let folders = LIBRARIES.into_iter().chain(["cli/src"]);
    let sources: Vec<_> = folders.flat_map(under).filter(|source| !source.is_test()).collect();
    let reads = |source: &Source| {
        let words = words.into_iter().chain(["option_env"]);
        words.flat_map(|word| source.places(source.shipped(), word)).collect::<Vec<_>>()
    };
    let is_allowed = |source: &&Source| READS_ENVIRONMENT.contains(&source.path.as_str());
    let wrong: Vec<_> = sources.iter().filter(|source| !is_allowed(source)).flat_map(reads).collect();
    assert_none("reading the environment outside the configuration", &wrong);
    let unused = sources.iter().filter(is_allowed).filter(|source| reads(source).is_empty());
    assert_none(
        "allowed to read the environment without doing so",
        &unused.map(|s| &s.path).collect::<Vec<_>>(),
    );
}

#[test]
fn no_file_is_too_long() {
    let too_long = |source: &Source| source.lines.len() > MOST_LINES;
    let told = |source: Source| format!("{}: {} lines", source.path, source.lines.len());
    let long: Vec<_> = everything().into_iter().filter(too_long).map(told).collect();
    assert_none(&format!("files of more than {MOST_LINES} lines"), &long);
}

#[test]
fn the_documents_name_every_member() {
    let mut missing = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root().join(document)).unwrap_or_default();
        for (package, _, folder) in STOREYS {
            if ![format!("{folder}/"), format!("`{package}`")].iter().any(|name| text.contains(name)) {
                missing.push(format!("{document}: {folder}/ or `{package}`"));
            }
        }
    }
    assert_none("members that a document does not name", &missing);
}

#[test]
fn comments_and_strings_are_no_code() {
    let text = "let a = \"unsafe \\\" {\"; // unsafe\n/* unsafe /* x */ unsafe */ let b = 'u'; r#\"unsafe\" \"#; f::<'a>(r#type)";
    let code = blank(text);
    assert!(!code.contains("unsafe"), "{code}");
    assert_eq!(code.lines().count(), 2);
    assert!(code.contains("let b =") && code.contains("f::<'a>(r#type)"), "{code}");
    assert!(has_word(&blank("x = unsafe { y }; '\\'' "), "unsafe"));
    assert!(!has_word("unsafe_code", "unsafe"));
}

/// Every Rust file of every member.
fn everything() -> Vec<Source> {
    let mut folders: Vec<String> = vec!["src".into(), "tests".into(), "benches".into()];
    folders.extend(STOREYS.iter().map(|row| row.2).filter(|folder| *folder != "src").map(str::to_owned));
    folders.iter().flat_map(|folder| under(folder)).collect()
}

#[track_caller]
fn assert_none<T: std::fmt::Display>(what: &str, list: &[T]) {
    let told: Vec<_> = list.iter().map(|entry| format!("\n  {entry}")).collect();
    assert!(list.is_empty(), "{what}:{}", told.concat());
}
