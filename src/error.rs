//! Why an output cannot start, worded for whoever has to fix it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an output cannot start. No text holds a secret: no option of kubehose takes one.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that is not accepted.
    Option {
        /// Its name.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What is accepted.
        accepted: &'static str,
        /// Details; may be empty.
        why: String,
    },
    /// There is no such option, but one with nearly this name.
    Misspelt {
        /// The name as given.
        name: String,
        /// The option that was probably meant.
        meant: &'static str,
    },
    /// An option is required and absent.
    Missing {
        /// Its name.
        name: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The spool's folder cannot be used.
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process, or another output, uses the spool's folder.
    SpoolInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The dead-letter file cannot be used.
    DeadLetters {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process, or another output, uses the dead-letter file.
    DeadLettersInUse {
        /// The file.
        file: PathBuf,
    },
    /// The system refused a thread.
    Thread(io::Error),
    /// Sockets cannot be watched.
    Runtime(io::Error),
    /// TLS cannot be set up.
    Tls(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Option { name, value, accepted, why } => {
                write!(out, "option '{name}': '{value}' is not accepted")?;
                if !why.is_empty() {
                    write!(out, " ({why})")?;
                }
                write!(out, "; accepted: {accepted}")
            }
            Error::Misspelt { name, meant } => write!(out, "there is no option '{name}': did you mean '{meant}'?"),
            Error::Missing { name, hint } => write!(out, "option '{name}' is missing; {hint}"),
            Error::Spool { folder, error } => {
                write!(
                    out,
                    "spool_dir '{}' cannot be used: {error}; it must be a folder that this process may write to",
                    folder.display()
                )
            }
            Error::SpoolInUse { folder } => {
                write!(
                    out,
                    "spool_dir '{}' is in use by another process or output; give each one a folder of its own",
                    folder.display()
                )
            }
            Error::Runtime(error) => {
                write!(out, "cannot watch sockets: {error}; raise the limit of open files (ulimit -n)")
            }
            Error::Tls(error) => write!(out, "{error}"),
            Error::DeadLetters { file, error } => {
                write!(
                    out,
                    "dead_letter_file '{}' cannot be used: {error}; it must be a file in a folder that this process may \
                     write to",
                    file.display()
                )
            }
            Error::DeadLettersInUse { file } => {
                write!(
                    out,
                    "dead_letter_file '{}' is in use by another process or output; give each one a file of its own",
                    file.display()
                )
            }
            Error::Thread(error) => {
                write!(out, "cannot start a thread: {error}; raise the limit of processes (ulimit -u, pids.max)")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Thread(error)
            | Error::Runtime(error)
            | Error::Spool { error, .. }
            | Error::DeadLetters { error, .. } => Some(error),
            Error::Tls(error) => Some(&**error),
            Error::Option { .. }
            | Error::Misspelt { .. }
            | Error::Missing { .. }
            | Error::SpoolInUse { .. }
            | Error::DeadLettersInUse { .. } => None,
        }
    }
}
