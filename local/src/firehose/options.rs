//! The options of a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use super::faults::Faults;

/// The options of a [`super::Server`]. By default it listens on a free port of 127.0.0.1 over plain HTTP, accepts
/// unsigned records for any stream, counts them and keeps none.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the administration (`/_kubehose/…`) also listens, over plain HTTP and unaffected by faults. It is always
    /// available at the main address, too, but not while the server is `down`.
    pub admin_listen: Option<SocketAddr>,
    /// Whether to use TLS (HTTP/1.1 and HTTP/2) with a certificate from an authority created at the start.
    pub tls: bool,
    /// The directory for the authority's certificate, `ca.pem`; by default a temporary one that is removed at the
    /// end.
    pub tls_dir: Option<PathBuf>,
    /// Names or addresses in the certificate besides `localhost`, `127.0.0.1` and `::1`.
    pub tls_names: Vec<String>,
    /// The region that signatures must be scoped to; None accepts any.
    pub region: Option<String>,
    /// The delivery streams that exist; empty stands for every valid name.
    pub streams: Vec<String>,
    /// The keys whose signatures are accepted; empty turns the check off.
    pub access_keys: Vec<AccessKey>,
    /// The file that accepted records are appended to, as the service writes its objects.
    pub output: Option<PathBuf>,
    /// What is kept of each accepted record in memory.
    pub keep: Keep,
    /// Whether to count distinct records by a 64-bit hash: [`super::Stats::unique`] and `duplicates`.
    pub count_unique: bool,
    /// The error code of a violated constraint (a record that is too large, too many records, …).
    pub validation_error: String,
    /// Whether to keep the data that the bench's page shows, and serve the page at `/_kubehose/`.
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

/// The code that the service's framework returns for a violated constraint, with `1 validation error detected: …`.
pub(super) const VALIDATION_ERROR: &str = "ValidationException";

/// What a server keeps of accepted records.
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
    /// The session token of temporary credentials; without one, a request's token is ignored.
    #[serde(default)]
    pub session_token: Option<String>,
    /// The expiry time; later requests get `ExpiredTokenException`.
    #[serde(skip)]
    pub expires: Option<SystemTime>,
}

impl AccessKey {
    /// A key pair without a session token that never expires.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        AccessKey { id: id.into(), secret: secret.into(), session_token: None, expires: None }
    }
}

impl std::fmt::Debug for AccessKey {
    /// Omits the secret, because options are logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey").field("id", &self.id).field("expires", &self.expires).finish_non_exhaustive()
    }
}
