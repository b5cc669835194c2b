//! Log lines on stderr, in the host's form: `[2026/11/22 23:20:34.123] [ info] …`.

use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};

/// Severities, with the numbers of `flb_log_print` and `log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub(super) enum Level {
    Off = 0,
    Error = 1,
    Warn = 2,
    Info = 3,
    Debug = 4,
    Trace = 5,
}

impl Level {
    /// The level that `log_level` names.
    pub fn named(name: &str) -> Option<Level> {
        Some(match name.to_ascii_lowercase().as_str() {
            "off" | "false" => Level::Off,
            "error" => Level::Error,
            "warn" | "warning" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            "trace" => Level::Trace,
            _ => return None,
        })
    }
}

static LEVEL: AtomicI32 = AtomicI32::new(Level::Info as i32);

/// Sets the service's level.
pub(super) fn set_level(level: Level) {
    LEVEL.store(level as i32, Ordering::Relaxed);
}

/// Whether lines of `level` are written.
pub(super) fn enabled(level: Level) -> bool {
    level as i32 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes a line at any level: the caller has checked it.
pub(super) fn write(level: i32, text: &str) {
    let name = match level {
        1 => "error",
        2 => " warn",
        3 => " info",
        4 => "debug",
        5 => "trace",
        _ => "     ",
    };
    let now = jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S.%3f");
    // One write per line, so that lines of several threads do not mix. An error is ignored: there is nowhere to report it.
    let _ = std::io::stderr().write_all(format!("[{now}] [{name}] {text}\n").as_bytes());
}

macro_rules! log {
    ($level:ident, $($arg:tt)*) => {
        if $crate::host::log::enabled($crate::host::log::Level::$level) {
            $crate::host::log::write($crate::host::log::Level::$level as i32, &format!($($arg)*));
        }
    };
}
pub(super) use log;
