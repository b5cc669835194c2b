//! What a server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use super::faults::Faults;

/// How a [`super::Server`] is started. The default listens on a free port of 127.0.0.1 over plain HTTP, takes any
/// stream's records unsigned, counts them and keeps none.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the administration (`/_kubehose/…`) also listens, over plain HTTP and untouched by any fault. On the main
    /// address it is always there, but out of reach while the server is `down`.
    pub admin_listen: Option<SocketAddr>,
    /// Whether to speak TLS (HTTP/1.1 and HTTP/2) with a certificate of an authority made at the start.
    pub tls: bool,
    /// The directory for the authority's certificate, `ca.pem`; a temporary one, removed at the end, if not given.
    pub tls_dir: Option<PathBuf>,
    /// Names or addresses to certify besides `localhost`, `127.0.0.1` and `::1`.
    pub tls_names: Vec<String>,
    /// The region that signatures must be scoped to; none accepts any.
    pub region: Option<String>,
    /// The delivery streams that exist; empty stands for every valid name.
    pub streams: Vec<String>,
    /// The keys whose signatures are accepted; empty turns the check off.
    pub access_keys: Vec<AccessKey>,
    /// The file that accepted records are appended to, as the service writes its objects.
    pub output: Option<PathBuf>,
    /// What is kept of each accepted record in memory.
    pub keep: Keep,
    /// Whether to tell records apart by a 64-bit hash, which gives [`super::Stats::unique`] and `duplicates`.
    pub count_unique: bool,
    /// The error code of a violated constraint (a record that is too large, too many records, …).
    pub validation_error: String,
    /// Whether to keep what the page of the bench shows, and to serve it at `/_kubehose/`.
    pub ui: bool,
    /// The faults to begin with.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_listen: None,
            tls: false,
            tls_dir: None,
            tls_names: Vec::new(),
            region: None,
            streams: Vec::new(),
            access_keys: Vec::new(),
            output: None,
            keep: Keep::Nothing,
            count_unique: false,
            validation_error: VALIDATION_ERROR.to_owned(),
            ui: false,
            faults: Faults::default(),
        }
    }
}

/// The code that the service's framework gives a violated constraint, seen with `1 validation error detected: …`.
pub(super) const VALIDATION_ERROR: &str = "ValidationException";

/// What a server keeps of the records that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Keep {
    /// Counts only.
    #[default]
    Nothing,
    /// A 64-bit hash (XXH3) of each record.
    Hashes,
    /// Each record's bytes.
    Records,
}

/// A key pair whose signatures are accepted.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessKey {
    /// The access key's id.
    pub id: String,
    /// The secret access key.
    pub secret: String,
    /// The token that temporary credentials must come with; without one a request's token is not looked at.
    #[serde(default)]
    pub session_token: Option<String>,
    /// When it expires; later requests get `ExpiredTokenException`.
    #[serde(skip)]
    pub expires: Option<SystemTime>,
}

impl AccessKey {
    /// A key pair without session token, that does not expire.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        AccessKey { id: id.into(), secret: secret.into(), session_token: None, expires: None }
    }
}

impl std::fmt::Debug for AccessKey {
    /// Leaves the secret out, since options end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}
