//! The one error type: kind, who, where, what to do.

use std::fmt;
use std::sync::Arc;

/// What a caller may still do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The arguments are wrong. Nothing was sent; the communicator can still be used.
    InvalidArgument,
    /// Valid, but not available here (an algorithm for this rank count, a call in virtual time). Nothing was sent.
    Unsupported,
    /// Starting failed: the rendezvous, the secret, a connection, a missing rank. There is no communicator.
    Start,
    /// The operating system refused something. The message says what and what to do.
    System,
    /// Ranks disagree about an operation. The communicator is poisoned.
    Mismatch,
    /// A deadline passed. An operation's own deadline poisons the communicator.
    Timeout,
    /// Another rank died, left or failed. The communicator is poisoned.
    Remote,
    /// `abort` was called, here or on another rank. The communicator is poisoned.
    Aborted,
    /// The communicator was closed by this rank.
    Closed,
    /// A defect in ubccl; please report it with the text.
    Internal,
}

impl ErrorKind {
    /// Every kind with its stable number (used on the wire and in the C interface; numbers are never used again).
    pub const TABLE: &'static [(ErrorKind, u32, &'static str)] = &[
        (ErrorKind::InvalidArgument, 1, "invalid argument"),
        (ErrorKind::Unsupported, 2, "not supported"),
        (ErrorKind::Start, 3, "start-up failed"),
        (ErrorKind::System, 4, "system error"),
        (ErrorKind::Mismatch, 5, "ranks disagree"),
        (ErrorKind::Timeout, 6, "timed out"),
        (ErrorKind::Remote, 7, "remote rank failed"),
        (ErrorKind::Aborted, 8, "aborted"),
        (ErrorKind::Closed, 9, "communicator closed"),
        (ErrorKind::Internal, 10, "internal error"),
    ];

    /// The stable number.
    pub fn code(self) -> u32 {
        self.row().1
    }

    /// The short name.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// The kind with this number.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    fn row(self) -> &'static (ErrorKind, u32, &'static str) {
        Self::TABLE.iter().find(|row| row.0 == self).expect("every kind has a row in TABLE")
    }
}

/// Who an error is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Culprit {
    /// Rank in the communicator.
    pub rank: u32,
    /// Host name, empty if unknown.
    pub host: String,
    /// Process id on that host, 0 if unknown.
    pub pid: u32,
}

/// Why a communicator is poisoned: one record, the same on every rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What the caller may still do.
    pub kind: ErrorKind,
    /// The rank that is the cause.
    pub culprit: Culprit,
    /// The culprit's operation as text (`all_reduce count=4 f32 sum`), empty if it was in none.
    pub operation: String,
    /// The culprit's collective sequence number, counted from 1; 0 before the first.
    pub sequence: u64,
    /// One sentence that says what happened.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Culprit { rank, host, pid } = &self.culprit;
        write!(f, "{}: rank {rank}", self.kind.name())?;
        if !host.is_empty() {
            write!(f, " (host {host}, pid {pid})")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.operation.is_empty() {
            write!(f, " [{}, sequence {}]", self.operation, self.sequence)?;
        }
        Ok(())
    }
}

/// An error of ubccl. Cheap to clone: the first cause reaches every later call.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    cause: Option<Cause>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// `Result` with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message that names the culprit and says what to do.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Arc::new(Inner { kind, message: message.into(), cause: None, source: None }))
    }

    /// Bad arguments; nothing was sent.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Valid but not available here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A defect in ubccl.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The operating system refused; `message` says what was tried and what to do.
    pub fn system(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::System, message).with_source(source)
    }

    /// The same error with the lower-level error that led to it.
    pub fn with_source(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let Inner { kind, message, cause, .. } = &*self.0;
        Error(Arc::new(Inner {
            kind: *kind,
            message: message.clone(),
            cause: cause.clone(),
            source: Some(source.into()),
        }))
    }

    /// What the caller may still do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The record that poisoned the communicator, if that is what this error reports.
    pub fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    /// The message without the source.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Error(Arc::new(Inner {
            kind: cause.kind,
            message: cause.to_string(),
            cause: Some(cause),
            source: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.cause.is_none() {
            write!(f, "{}: ", self.0.kind.name())?;
        }
        f.write_str(&self.0.message)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_number_and_comes_back_from_it() {
        for &(kind, code, _) in ErrorKind::TABLE {
            assert_eq!(ErrorKind::from_code(code), Some(kind));
            assert_eq!(kind.code(), code);
        }
        assert_eq!(ErrorKind::from_code(0), None);
    }

    #[test]
    fn a_cause_is_told_with_rank_host_pid_operation_and_sequence() {
        let cause = Cause {
            kind: ErrorKind::Remote,
            culprit: Culprit { rank: 3, host: "node7".into(), pid: 41 },
            operation: "all_reduce count=4 f32 sum".into(),
            sequence: 9,
            message: "the process died".into(),
        };
        let text = Error::from(cause).to_string();
        for part in ["rank 3", "node7", "41", "all_reduce count=4", "sequence 9", "died"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
