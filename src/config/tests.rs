//! Where values come from, and what is refused.

use super::*;
use std::fs;
use std::path::PathBuf;

/// Resolves with these arguments and variables and no others.
fn resolve(arguments: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config> {
    let get = |name: &str| Ok(variables.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned()));
    let names = variables.iter().map(|pair| pair.0.to_owned()).collect();
    Config::resolve(arguments, &Environment { get: &get, names })
}

fn with(variables: &[(&str, &str)]) -> Result<Config> {
    resolve(&[], variables)
}

fn told(config: &Config, name: &str) -> String {
    config.describe().iter().find(|told| told.setting.name == name).unwrap().to_string()
}

/// A file of this content that is gone when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ubccl-{name}-{}.toml", std::process::id()));
        fs::write(&path, content).unwrap();
        Temporary(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn the_table_has_one_name_and_one_variable_for_each_setting() {
    for (k, setting) in SETTINGS.iter().enumerate() {
        assert_eq!(setting.variable, format!("UBCCL_{}", setting.name.to_uppercase()));
        assert!(SETTINGS[..k].iter().all(|other| other.name != setting.name), "{}", setting.name);
        assert!(!setting.doc.is_empty() && !setting.doc.contains('|') && !setting.default_text().is_empty());
        assert_eq!(setting.check(&Config::default()), Ok(()), "the default of {}", setting.name);
        assert!(std::ptr::eq(settings::find(setting.name).unwrap(), *setting));
    }
}

#[test]
fn every_setting_is_read_from_its_variable_and_shown_with_it() {
    let secret = "ubccl:1:127.0.0.1:40123:00112233445566778899aabbccddeeff";
    let file = Temporary::new("every", "");
    let values: &[(&str, &str, &str)] = &[
        ("UBCCL_CONFIG", file.path(), file.path()),
        ("UBCCL_RENDEZVOUS", secret, "ubccl:1:127.0.0.1:40123:(secret)"),
        ("UBCCL_RANK", "3", "3"),
        ("UBCCL_SIZE", "4", "4"),
        ("UBCCL_TRANSPORT", "sim", "optical"),
        ("UBCCL_PACED", "ideal", "ideal"),
        ("UBCCL_ALGO", "mesh_one_shot", "mesh-one-shot"),
        ("UBCCL_ENGINE", "read", "read"),
        ("UBCCL_LAYOUT", "node=2", "node=2"),
        ("UBCCL_REPRODUCIBLE", "yes", "1"),
        ("UBCCL_TUNING", "here.toml", "here.toml"),
        ("UBCCL_CHUNK", "64K", "65536 B"),
        ("UBCCL_LANES", "2", "2"),
        ("UBCCL_PAIR_BYTES", "1M", "1048576 B"),
        ("UBCCL_PEER_READS", "no", "0"),
        ("UBCCL_TIMEOUT", "5", "5 s"),
        ("UBCCL_START_TIMEOUT", "1min", "60 s"),
        ("UBCCL_WARN_AFTER", "0.5", "0.5 s"),
        ("UBCCL_SPIN_US", "20", "20 us"),
        ("UBCCL_DEBUG", "info", "INFO"),
        ("UBCCL_DEBUG_SUBSYS", "init,net", "init,net"),
    ];
    assert_eq!(values.len(), SETTINGS.len(), "every setting is tried");
    let variables: Vec<_> = values.iter().map(|row| (row.0, row.1)).collect();
    let config = with(&variables).unwrap();
    for (setting, (variable, _, shown)) in SETTINGS.iter().zip(values) {
        assert_eq!(setting.variable, *variable, "in the table's order");
        let expected = format!("{} = {shown} (environment {variable})", setting.name);
        assert_eq!(told(&config, setting.name), expected);
    }
    assert_eq!((config.rank, config.ranks, config.chunk_bytes), (3, 4, Some(65536)));
    assert_eq!(config.operation_timeout, Duration::from_secs(5));
    assert_eq!(config.spin, Duration::from_micros(20));
}

#[test]
fn argument_comes_before_environment_before_file_before_default() {
    let file = Temporary::new("order", "# ours\ntimeout = 1\nlanes = 2\n\nchunk = '3K'\nwarn_after = 0.5");
    let variables = [("UBCCL_CONFIG", file.path()), ("UBCCL_TIMEOUT", "2"), ("UBCCL_LANES", "4")];
    let config = resolve(&[("timeout", "3")], &variables).unwrap();
    assert_eq!(told(&config, "timeout"), "timeout = 3 s (argument)");
    assert_eq!(told(&config, "lanes"), "lanes = 4 (environment UBCCL_LANES)");
    assert_eq!(told(&config, "chunk"), format!("chunk = 3072 B (file {} line 5)", file.path()));
    assert_eq!(told(&config, "warn_after"), format!("warn_after = 0.5 s (file {} line 6)", file.path()));
    assert_eq!(told(&config, "start_timeout"), "start_timeout = 120 s (default)");
    assert_eq!(told(&config, "spin_us"), "spin_us = 1000 us (default)");
    assert_eq!(told(&config, "config"), format!("config = {} (environment UBCCL_CONFIG)", file.path()));
}

#[test]
fn a_field_that_the_program_changes_is_an_argument() {
    let from_variables = with(&[("UBCCL_TIMEOUT", "2"), ("UBCCL_TRANSPORT", "tcp")]).unwrap();
    let config = Config { operation_timeout: Duration::from_secs(9), rank: 0, ..from_variables };
    assert_eq!(told(&config, "timeout"), "timeout = 9 s (argument)");
    assert_eq!(told(&config, "transport"), "transport = tcp (environment UBCCL_TRANSPORT)");
    assert_eq!(told(&config, "rank"), "rank = 0 (default)");
    let config = Config { ranks: 2, ..Config::default() };
    assert_eq!(told(&config, "size"), "size = 2 (argument)");
}

#[test]
fn bad_values_are_refused_with_the_variable_and_the_limit() {
    for (pairs, parts) in [
        (&[("UBCCL_RANK", "x")][..], &["UBCCL_RANK is 'x'", "whole number"][..]),
        (&[("UBCCL_RANK", "4"), ("UBCCL_SIZE", "4")], &["ranks are 0 to 3"]),
        (&[("UBCCL_LANES", "9")], &["UBCCL_LANES is '9'", "1 to 8"]),
        (&[("UBCCL_SIZE", "0")], &["UBCCL_SIZE", "1 to 1048575"]),
        (&[("UBCCL_CHUNK", "0")], &["UBCCL_CHUNK", "1 to 4294967295 B"]),
        (&[("UBCCL_CHUNK", "5G")], &["UBCCL_CHUNK", "1 to 4294967295 B"]),
        (&[("UBCCL_TIMEOUT", "0")], &["UBCCL_TIMEOUT", "0.001 to 31536000 s"]),
        (&[("UBCCL_TIMEOUT", "soon")], &["UBCCL_TIMEOUT is 'soon'", "such as 30s"]),
        (&[("UBCCL_DEBUG", "LOUD")], &["UBCCL_DEBUG is 'LOUD'", "WARN, INFO"]),
        (&[("UBCCL_DEBUG_SUBSYS", "WARP")], &["UBCCL_DEBUG_SUBSYS", "INIT"]),
        (
            &[("UBCCL_CONFIG", "/nowhere/ubccl.toml")],
            &["/nowhere/ubccl.toml", "UBCCL_CONFIG", "No such file"],
        ),
    ] {
        let error = with(pairs).unwrap_err();
        assert_eq!(error.kind(), ubccl_core::ErrorKind::InvalidArgument);
        for part in parts {
            assert!(error.to_string().contains(part), "{part} is not in: {error}");
        }
    }
    assert!(resolve(&[("lane", "2")], &[]).unwrap_err().to_string().contains("did you mean 'lanes'"));
    assert!(resolve(&[("lanes", "x")], &[]).unwrap_err().to_string().contains("lanes is 'x'"));
    let config = Config { pair_bytes: Some(3), ..Config::default() };
    assert!(config.check().unwrap_err().to_string().contains("pair_bytes is 3 (argument)"));
}

#[test]
fn a_secret_is_never_repeated() {
    let secret = "ffeeddccbbaa99887766554433221100";
    let right = format!("ubccl:1:127.0.0.1:40123:{secret}");
    let error = with(&[("UBCCL_RENDEZVOUS", &format!("{right}00"))]).unwrap_err();
    assert!(
        error.to_string().contains("UBCCL_RENDEZVOUS") && !format!("{error:?}").contains(secret),
        "{error:?}"
    );
    let config = with(&[("UBCCL_RENDEZVOUS", &right)]).unwrap();
    assert!(!format!("{config:?}{:?}", config.describe()).contains(secret));
}

#[test]
fn a_file_with_an_error_is_refused_with_its_line() {
    for (text, parts) in [
        ("lanes = 1\nchunks = 3", &["line 2", "'chunks'", "did you mean 'chunk'?"][..]),
        ("\n\nfrobnicate = 3", &["line 3", "'frobnicate'", "there are: config, rendezvous"]),
        ("lanes = 9", &["line 1", "lanes is '9'", "1 to 8"]),
        ("rank = 1", &["line 1", "UBCCL_RANK"]),
        ("lanes = true", &["line 1", "number or a text"]),
        ("lanes = 1\nlanes = 2", &["line 2"]),
        ("lanes = 1\nlanes", &["line 2"]),
        ("[lanes]\nx = 1", &["line 1", "number or a text"]),
    ] {
        let file = Temporary::new("wrong", text);
        let error = with(&[("UBCCL_CONFIG", file.path())]).unwrap_err().to_string();
        for part in parts.iter().chain([&file.path()]) {
            assert!(error.contains(part), "{text:?}: {part} is not in: {error}");
        }
    }
}

#[test]
fn misspelt_variables_are_noted_and_strangers_left_alone() {
    let config = with(&[("UBCCL_CHUNKS", "1"), ("UBCCL_WRITE_HEADER", "1"), ("UBCCLX", "1")]).unwrap();
    assert_eq!(config.origins.strays, [("UBCCL_CHUNKS".to_owned(), "UBCCL_CHUNK")]);
}
