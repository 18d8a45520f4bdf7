//! Why the program ends without success.

use crate::target::Error;

/// What `main` turns into a message and an exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something to tell the user on standard error.
    Message(String),
    /// Standard output or standard error went away: nobody is left to tell.
    NobodyListens,
    /// A signal asked the program to end; the ranks are gone already.
    Signal(i32),
    /// Everything is told already (wrong elements in the table).
    Told,
}

/// `Result` with [`Failure`].
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure::Message(message.into())
    }

    /// What a failed write to standard output means.
    pub(crate) fn from_output(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::NobodyListens;
        }
        Failure::Message(format!(
            "cannot write to standard output: {error}; free space or redirect it elsewhere"
        ))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Message(error.to_string())
    }
}
