//! `kubehose-host`: the command line, the signals, and the runs of a configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use super::abi::{self, Library};
use super::configuration::{self, Error, Section};
use super::engine::{Engine, Notice, Service, set_log_level};
use super::event::EventForm;
use super::log::log;
use super::memory;

/// Runs output plugins as Fluent Bit does, with its command line and classic configuration as far as tests need them.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "kubehose-host", disable_version_flag = true)]
pub struct Args {
    /// The configuration.
    #[arg(short = 'c', long = "config", value_name = "FILE", required_unless_present = "version")]
    config: Option<PathBuf>,
    /// A plugin to load; the path needs a slash.
    #[arg(short = 'e', long = "plugin", value_name = "FILE")]
    plugin: Vec<PathBuf>,
    /// Check the configuration and end.
    #[arg(short = 'D', long = "dry-run")]
    dry_run: bool,
    /// Reload the configuration at SIGHUP.
    #[arg(short = 'Y', long = "enable-hot-reload")]
    hot_reload: bool,
    /// More log lines.
    #[arg(short = 'v', long = "verbose", action = clap::ArgAction::Count)]
    verbose: u8,
    /// How events are written: v1 as up to Fluent Bit 2.0, v2 as since 2.1.
    #[arg(long, value_enum, default_value = "v2")]
    event_form: EventForm,
    /// Print the version and end.
    #[arg(short = 'V', long = "version")]
    version: bool,
}

/// Exit code for a configuration that cannot be read, as in the real host.
const BAD_CONFIGURATION: u8 = 1;
/// Exit code for an engine that cannot start (-1), as in the real host.
const BAD_START: u8 = 255;

/// The whole program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.version {
        println!("kubehose-host v{} (stand-in for Fluent Bit)", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    memory::explain_faults();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log!(Error, "[config] {error}");
            eprintln!("kubehose-host: {error}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

/// An engine whose plugins are loaded and registered, but not yet initialised.
fn prepare(args: &Args, hot_reload: bool) -> Result<Engine, Error> {
    let path = args.config.as_deref().unwrap_or(Path::new(""));
    let sections: Vec<Section> = configuration::read(path)?;
    let service = Service::read(&sections, path.parent().unwrap_or(Path::new(".")))?;
    set_log_level(&service, args.verbose > 0);
    let mut files = args.plugin.clone();
    for plugins_file in &service.plugins {
        for section in configuration::read(plugins_file)? {
            if section.name != "PLUGINS" {
                return Err(section.error(format!("[{}] has no place in a plugins_file, only [PLUGINS]", section.name)));
            }
            section.only(&["path"])?;
            files.extend(section.all("path").map(PathBuf::from));
        }
    }
    let mut libraries = Vec::new();
    for file in &files {
        match Library::load(file, hot_reload).map_err(Error)? {
            Some(library) => libraries.push(library),
            None => log!(Warn, "{} did not want to be registered", file.display()),
        }
    }
    Engine::new(&sections, service, libraries, args.event_form)
}

fn run(args: &Args) -> Result<u8, Error> {
    let mut engine = prepare(args, false)?;
    if args.dry_run {
        println!("configuration test is successful");
        engine.exit(false);
        engine.close();
        return Ok(0);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error(format!("cannot start: {error}")))?;
    let catch = |kind| signal(kind).map_err(|error| Error(format!("cannot catch signals: {error}")));
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _guard = runtime.enter();
        (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?, catch(SignalKind::hangup())?)
    };
    let mut hot_reload = false;
    loop {
        let notices = engine.sender();
        let (ended, mut end) = tokio::sync::oneshot::channel();
        let pipeline = std::thread::Builder::new().name("flb-pipeline".to_owned()).spawn(move || {
            let code = pipeline(&mut engine, hot_reload);
            let _ = ended.send((code, engine));
        });
        let pipeline = pipeline.map_err(|error| Error(format!("cannot start the pipeline: {error}")))?;
        let mut next = None;
        let (code, mut finished) = runtime.block_on(async {
            loop {
                tokio::select! {
                    end = &mut end => return end.map_err(|_| Error("the pipeline has panicked".to_owned())),
                    _ = interrupt.recv() => stop(&notices, "SIGINT", libc::SIGINT),
                    _ = terminate.recv() => stop(&notices, "SIGTERM", libc::SIGTERM),
                    _ = hang_up.recv(), if args.hot_reload && next.is_none() => match prepare(args, true) {
                        Ok(engine) => {
                            log!(Info, "[reload] the new configuration is loaded, the old one is drained");
                            next = Some(engine);
                            let _ = notices.send(Notice::Stop(true));
                        }
                        Err(error) => log!(Error, "[reload] the configuration stays as it was: {error}"),
                    },
                }
            }
        })?;
        let _ = pipeline.join();
        finished.close();
        eprintln!("kubehose-host: {}", finished.summary());
        match (code, next) {
            (Code::Reload, Some(next)) => (engine, hot_reload) = (next, true),
            (Code::Failed, _) => return Ok(BAD_START),
            (_, Some(mut next)) => {
                next.exit(true);
                next.close();
                return Ok(0);
            }
            (_, None) => return Ok(0),
        }
    }
}

fn stop(notices: &crossbeam_channel::Sender<Notice>, signal: &str, number: i32) {
    abi::exit_signal.store(number, std::sync::atomic::Ordering::Relaxed);
    log!(Info, "[engine] caught signal ({signal})");
    // The engine may have ended already.
    let _ = notices.send(Notice::Stop(false));
}

/// How a run of the pipeline ended.
enum Code {
    Stopped,
    Reload,
    Failed,
}

/// Runs the instances from Init to ExitCtx, on the pipeline's thread, as in the real host.
fn pipeline(engine: &mut Engine, hot_reload: bool) -> Code {
    let code = match engine.initialize(hot_reload) {
        Err(()) => Code::Failed,
        Ok(()) => match engine.run() {
            Ok(true) => Code::Reload,
            Ok(false) => Code::Stopped,
            Err(error) => {
                log!(Error, "[engine] cannot run: {error}");
                Code::Failed
            }
        },
    };
    engine.exit(matches!(code, Code::Reload));
    code
}
