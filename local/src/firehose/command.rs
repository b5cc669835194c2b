//! The endpoint as a command: `kubehose firehose …`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use super::faults::Faults;
use super::options::{AccessKey, Keep, Options, VALIDATION_ERROR};
use super::server::Server;

/// Runs a local Amazon Data Firehose endpoint until it is interrupted.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to listen; with port 0, on a free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4573")]
    pub listen: SocketAddr,
    /// Show a page at /_kubehose/: records as they arrive, rates, calls, and switches for the faults.
    #[arg(long)]
    pub ui: bool,
    /// Where the administration (/_kubehose/…) also listens, without faults; with --ui, by default on the next port.
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<SocketAddr>,
    /// Write the port into this file once the endpoint listens.
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// Speak TLS, with a certificate from an authority made at the start.
    #[arg(long)]
    pub tls: bool,
    /// Where to write the authority's certificate, ca.pem; by default a temporary directory.
    #[arg(long, value_name = "DIR", requires = "tls")]
    pub tls_dir: Option<PathBuf>,
    /// A name or address to certify besides localhost, 127.0.0.1 and ::1.
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_name: Vec<String>,
    /// The region that signatures must be scoped to; by default any.
    #[arg(long)]
    pub region: Option<String>,
    /// A delivery stream that exists; by default every valid name.
    #[arg(long, value_name = "NAME")]
    pub stream: Vec<String>,
    /// Check signatures: the access key's id that is accepted.
    #[arg(long, value_name = "ID", requires = "secret_access_key")]
    pub access_key_id: Option<String>,
    /// The secret of the access key.
    #[arg(long, value_name = "SECRET", requires = "access_key_id")]
    pub secret_access_key: Option<String>,
    /// The session token that must come with the access key.
    #[arg(long, value_name = "TOKEN", requires = "access_key_id")]
    pub session_token: Option<String>,
    /// How many seconds after the start the access key expires.
    #[arg(long, value_name = "SECONDS", requires = "access_key_id")]
    pub expires_after: Option<u64>,
    /// Append accepted records to this file, as the service writes its objects.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Count duplicate records (8 bytes of memory and more for each record).
    #[arg(long)]
    pub count_unique: bool,
    /// Write the counts as JSON into this file at the end.
    #[arg(long, value_name = "FILE")]
    pub stats_file: Option<PathBuf>,
    /// The error code of a violated constraint.
    #[arg(long, value_name = "CODE", default_value = VALIDATION_ERROR)]
    pub validation_error: String,
    /// The faults to begin with.
    #[command(flatten, next_help_heading = "Faults")]
    pub faults: Faults,
}

impl From<&Args> for Options {
    fn from(args: &Args) -> Options {
        let expires = args.expires_after.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        let key = args.access_key_id.as_ref().zip(args.secret_access_key.as_ref()).map(|(id, secret)| AccessKey {
            session_token: args.session_token.clone(),
            expires,
            ..AccessKey::new(id, secret)
        });
        // The page must be reachable while the endpoint is `down`, and needs no certificate.
        let beside = || {
            SocketAddr::new(
                args.listen.ip(),
                args.listen.port().checked_add(1).filter(|_| args.listen.port() != 0).unwrap_or(0),
            )
        };
        Options {
            listen: args.listen,
            admin_listen: args.admin_listen.or_else(|| args.ui.then(beside)),
            ui: args.ui,
            tls: args.tls,
            tls_dir: args.tls_dir.clone(),
            tls_names: args.tls_name.clone(),
            region: args.region.clone(),
            streams: args.stream.clone(),
            access_keys: key.into_iter().collect(),
            output: args.output.clone(),
            keep: Keep::Nothing,
            count_unique: args.count_unique,
            validation_error: args.validation_error.clone(),
            faults: args.faults.clone(),
        }
    }
}

/// Runs the endpoint until SIGINT or SIGTERM; prints its address to stderr, and its counts at the end.
/// Blocks; must be called outside a tokio runtime.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("kubehose firehose: {message}");
            ExitCode::from(1)
        }
    }
}

fn try_run(args: &Args) -> Result<(), String> {
    // Catch the signals before the address is known to anyone.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let (mut interrupt, mut terminate) = runtime
        .block_on(async { Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })
        .map_err(|error: std::io::Error| format!("cannot catch signals: {error}"))?;

    let mut server = Server::start(Options::from(args)).map_err(|error| error.to_string())?;
    if let Some(file) = &args.port_file {
        write_whole(file, &format!("{}\n", server.port()))?;
    }
    let everywhere = match server.address().ip().is_unspecified() {
        true => format!(" (on {}, every address of this machine, for whoever reaches it)", server.address()),
        false => String::new(),
    };
    eprintln!(
        "kubehose firehose: listening on {}{everywhere}{}",
        server.url(),
        match server.ca_pem_path() {
            Some(ca) => format!(", trust {}", ca.display()),
            None => String::new(),
        }
    );
    if args.ui {
        eprintln!("kubehose firehose: the page is at {}/_kubehose/", server.admin_url());
    }
    runtime.block_on(async {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    });
    server.stop();
    let stats = server.stats();
    eprintln!("kubehose firehose: {}", stats.summary());
    if let Some(file) = &args.stats_file {
        let json = serde_json::to_string_pretty(&stats).map_err(|error| error.to_string())?;
        write_whole(file, &format!("{json}\n"))?;
    }
    Ok(())
}

/// Writes a file atomically, so that a waiting reader never sees a part of it.
fn write_whole(path: &Path, text: &str) -> Result<(), String> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
