//! How a communicator begins: rendezvous and configuration.
#![allow(unsafe_code)] // takes C's word for its pointers; each function says which

use crate::boundary::{guard, put, read_text, write_text};
use crate::codes::{library_version, ubccl_result};
use crate::comm::{COMMS, Comm, ubccl_comm};
use crate::handles::Table;
use std::ffi::c_char;
use std::time::Duration;
use ubccl_rs::{Communicator, Config, Error, Rendezvous, Result};

/// Bytes that a rendezvous text and its end need at most.
pub const UBCCL_RENDEZVOUS_TEXT_MAX: usize = 128;

/// Where ranks meet: rank 0's listener and the text that the others need.
#[allow(non_camel_case_types)]
pub struct ubccl_rendezvous(());

pub(crate) static RENDEZVOUS: Table<Rendezvous> = Table::new(0xc2, "rendezvous");

/// How a communicator is made. Fill it with `ubccl_config_init`, then change what you need.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct ubccl_config {
    /// Bytes of this structure as the caller knows it; set by `ubccl_config_init`.
    pub size: usize,
    /// The version that the caller was compiled with; set by `ubccl_config_init`.
    pub version: u32,
    /// This rank, from 0; `ubccl_config_init` has set it to `UBCCL_RANK`, or 0.
    pub rank: u32,
    /// How many ranks; `ubccl_config_init` has set it to `UBCCL_SIZE`, or 1.
    pub ranks: u32,
    /// Seconds that one operation may take; 0: `UBCCL_TIMEOUT` or the default.
    pub operation_timeout_s: u32,
    /// Where the ranks meet, as text; null: `listener` if there is one, otherwise `UBCCL_RENDEZVOUS`. One rank alone
    /// needs none.
    pub rendezvous: *const c_char,
    /// Rank 0 only: the rendezvous that it made. It is used up by a successful `ubccl_comm_init`, and by a failed one
    /// unless `size` or `version` is wrong.
    pub listener: *mut ubccl_rendezvous,
    /// The transport's name; null: `UBCCL_TRANSPORT` or the default.
    pub transport: *const c_char,
    /// An algorithm for every call; null: `UBCCL_ALGO` or chosen by size.
    pub algorithm: *const c_char,
    /// An engine for every call, of a simulated fabric that has several; null: `UBCCL_ENGINE` or chosen by cost.
    pub engine: *const c_char,
}

/// Makes a rendezvous: rank 0 does, gives its text to the other ranks (`rendezvous` of their configuration, or their
/// `UBCCL_RENDEZVOUS`), and the rendezvous itself to `ubccl_comm_init` (`listener` of its own). Ranks may be forked
/// between the two. The alternative: a launcher makes one, writes down the text, destroys the rendezvous, and starts
/// all ranks, 0 too, with the text; rank 0 then listens at that address itself.
///
/// Errors: SystemError if the listening socket was refused.
/// Source: ncclGetUniqueId, HcclGetRootInfo.
///
/// # Safety
/// `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_rendezvous_create(out: *mut *mut ubccl_rendezvous) -> ubccl_result {
    // SAFETY: the caller vouches for `out`.
    guard(|| unsafe { put(&RENDEZVOUS, out, Rendezvous::create) })
}

/// Writes the rendezvous' text, zero-terminated, into `text` (`len` bytes, `UBCCL_RENDEZVOUS_TEXT_MAX` suffices). The
/// text has the job's secret in it: whoever has it can join.
///
/// # Safety
/// `text` is null or has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_rendezvous_text(
    rendezvous: *const ubccl_rendezvous,
    text: *mut c_char,
    len: usize,
) -> ubccl_result {
    guard(|| {
        let rendezvous = RENDEZVOUS.get(rendezvous.addr())?;
        // SAFETY: the caller vouches for `text` and `len`.
        unsafe { write_text(&rendezvous.text(), text, len) }
    })
}

/// Frees a rendezvous that no `ubccl_comm_init` used up; its text stays good for a rank 0 that has only the text. Null is fine.
///
/// Errors: InvalidArgument if it was destroyed or used up before.
#[unsafe(no_mangle)]
pub extern "C" fn ubccl_rendezvous_destroy(rendezvous: *mut ubccl_rendezvous) -> ubccl_result {
    guard(|| {
        if !rendezvous.is_null() {
            drop(RENDEZVOUS.own(rendezvous.addr())?.end());
        }
        Ok(())
    })
}

/// Fills a configuration: `rank` and `ranks` from `UBCCL_RANK` and `UBCCL_SIZE` (0 and 1 without them), everything else
/// such that `ubccl_comm_init` takes it from the environment, the configuration file, or the default. A program that
/// a launcher started with these variables needs to set nothing.
///
/// Errors: InvalidArgument, naming the variable, or the file and its line, and what the value may be.
///
/// # Safety
/// `config` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_config_init(config: *mut ubccl_config) -> ubccl_result {
    guard(|| {
        if config.is_null() {
            return Err(Error::invalid("config is null"));
        }
        let place = Config::from_env()?;
        let filled = ubccl_config {
            size: size_of::<ubccl_config>(),
            version: library_version(),
            rank: place.rank,
            ranks: place.ranks,
            operation_timeout_s: 0,
            rendezvous: std::ptr::null(),
            listener: std::ptr::null_mut(),
            transport: std::ptr::null(),
            algorithm: std::ptr::null(),
            engine: std::ptr::null(),
        };
        // SAFETY: it is not null, and the caller vouches that it may be written.
        unsafe { config.write(filled) };
        Ok(())
    })
}

/// Joins a communicator; returns when all ranks have.
///
/// Order:  every rank calls it once, with its own rank and the same rendezvous, size, transport and algorithm.
/// Errors: InvalidArgument; StartFailed, naming the ranks that are missing or disagree; SystemError; Unsupported in a
///         child forked from a process that has a communicator.
/// Source: ncclCommInitRankConfig, HcclCommInitRootInfo.
///
/// # Safety
/// `config` is null or readable, its texts are null or zero-terminated; `out` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ubccl_comm_init(
    config: *const ubccl_config,
    out: *mut *mut ubccl_comm,
) -> ubccl_result {
    guard(|| {
        // Before `out` is looked at: whatever fails, the listener is used up.
        // SAFETY: the caller vouches for `config` and its texts.
        let config = unsafe { read_config(config) }?;
        // A C program has no subscriber of its own; another Rust library in it might.
        ubccl_rs::logging::install(&config)?;
        let transport = config.transport.clone();
        let make = || Ok(Comm::new(Communicator::init(config)?, transport));
        // SAFETY: the caller vouches for `out`.
        unsafe { put(&COMMS, out, make) }
    })
}

/// # Safety
/// As for `ubccl_comm_init`.
unsafe fn read_config(config: *const ubccl_config) -> Result<Config> {
    if config.is_null() {
        return Err(Error::invalid("config is null"));
    }
    // SAFETY: it is not null, so the caller vouches that its size may be read, whatever version it is of.
    let size = unsafe { config.cast::<usize>().read() };
    if size != size_of::<ubccl_config>() {
        return Err(Error::invalid(format!(
            "config.size is {size}, this version's is {}: fill it with ubccl_config_init",
            size_of::<ubccl_config>()
        )));
    }
    // SAFETY: the caller vouches for as many bytes as `size` says, which are all.
    let given = unsafe { &*config };
    if given.version / 10_000 != library_version() / 10_000 {
        return Err(Error::invalid(format!(
            "config.version is {}, the library's {}: compile with its header and fill config with ubccl_config_init",
            given.version,
            library_version()
        )));
    }
    let listener = match given.listener.is_null() {
        true => None,
        false => Some(RENDEZVOUS.own(given.listener.addr())?.end()),
    };
    let mut config = Config::from_env_with(given.rank, given.ranks)?;
    // SAFETY: the caller vouches for the texts.
    let text = |pointer, what| unsafe { read_text(pointer, what) };
    if let Some(text) = text(given.rendezvous, "rendezvous")? {
        config.rendezvous = Some(text.parse()?);
    }
    if let Some(listener) = listener {
        config.rendezvous = Some(listener);
    }
    if let Some(transport) = text(given.transport, "transport")? {
        config.transport = transport;
    }
    config.algorithm = text(given.algorithm, "algorithm")?.or(config.algorithm);
    config.engine = text(given.engine, "engine")?.or(config.engine);
    if given.operation_timeout_s > 0 {
        config.operation_timeout = Duration::from_secs(given.operation_timeout_s.into());
    }
    Ok(config)
}
