//! The server: a listening thread with its own runtime, and the handle that stops it.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::connection::{Breakable, Breaker, reset};
use super::faults::{Down, Faults};
use super::options::{AccessKey, Options};
use super::output::AcceptedRecord;
use super::service::Service;
use super::stats::Stats;
use super::tls;

/// A running endpoint. It stops when it is dropped.
pub struct Server {
    service: Arc<Service>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    ca: Option<Authority>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// The authority's certificate, and whether its directory is removed with the server.
struct Authority {
    directory: PathBuf,
    file: PathBuf,
    temporary: bool,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum Error {
    /// The server cannot listen on the address.
    Listen(SocketAddr, io::Error),
    /// The output file cannot be opened for writing.
    Output(PathBuf, io::Error),
    /// The certificates cannot be made or written.
    Tls(PathBuf, String),
    /// The thread or its runtime cannot be started.
    Runtime(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Listen(address, error) => {
                write!(f, "cannot listen on {address}: {error}; give another address, or port 0 for a free one")
            }
            Error::Output(path, error) => write!(f, "cannot write the output {}: {error}", path.display()),
            Error::Tls(path, error) => write!(f, "cannot make certificates in {}: {error}", path.display()),
            Error::Runtime(error) => write!(f, "cannot start the server's thread: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl Server {
    /// Starts an endpoint; it is listening when this returns.
    ///
    /// # Errors
    /// [`Error`] when the address is taken, or the output or the certificates cannot be written.
    pub fn start(options: Options) -> Result<Server, Error> {
        let bind = |address: SocketAddr| {
            let listener = listen(address).map_err(|error| Error::Listen(address, error))?;
            let address = listener.local_addr().map_err(|error| Error::Listen(address, error))?;
            Ok((listener, address))
        };
        let (listener, address) = bind(options.listen)?;
        let admin = options.admin_listen.map(bind).transpose()?;
        let (acceptor, ca) = match options.tls {
            true => {
                let (acceptor, ca) = authority(&options, address)?;
                (Some(acceptor), Some(ca))
            }
            false => (None, None),
        };
        let output = options.output.clone().unwrap_or_default();
        let service = Arc::new(Service::new(options).map_err(|error| Error::Output(output, error))?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("firehose-worker")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let (stop, stopped) = watch::channel(false);
        let admin_address = admin.as_ref().map(|(_, address)| *address);
        let thread = std::thread::Builder::new().name("firehose".to_owned()).spawn({
            let service = Arc::clone(&service);
            move || {
                runtime.block_on(async {
                    if let Some((listener, _)) = admin {
                        tokio::spawn(administrate(listener, Arc::clone(&service)));
                    }
                    serve(listener, address, acceptor, service, stopped).await;
                });
                // Stalled requests must not keep a test from ending.
                runtime.shutdown_timeout(Duration::from_millis(200));
            }
        });
        let thread = Some(thread.map_err(Error::Runtime)?);
        Ok(Server { service, address, admin_address, ca, stop, thread })
    }

    /// The endpoint's URL, such as `http://127.0.0.1:4570`.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", reachable(self.address))
    }

    /// The address it listens on: one of this machine, or all of them (0.0.0.0, [::]).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administration's URL without a path: at its own address if it has one, otherwise at the endpoint's.
    pub fn admin_url(&self) -> String {
        self.admin_address.map_or_else(|| self.url(), |address| format!("http://{}", reachable(address)))
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// With TLS, the certificate of the authority to trust.
    pub fn ca_pem_path(&self) -> Option<&Path> {
        self.ca.as_ref().map(|ca| ca.file.as_path())
    }

    /// The counts so far.
    pub fn stats(&self) -> Stats {
        self.service.stats()
    }

    /// The accepted records in the order of arrival; empty unless started with [`super::Keep::Records`].
    pub fn records(&self) -> Vec<AcceptedRecord> {
        self.service.output().records.clone()
    }

    /// The accepted records' hashes (XXH3, 64 bits) in the order of arrival; empty unless started with
    /// [`super::Keep::Hashes`].
    pub fn hashes(&self) -> Vec<u64> {
        self.service.output().hashes.clone()
    }

    /// The current faults.
    pub fn faults(&self) -> Faults {
        self.service.faults()
    }

    /// Replaces the faults, from the next request on.
    pub fn set_faults(&self, faults: Faults) {
        self.service.set_faults(faults);
    }

    /// Accepts signatures with these keys from now on; an empty list turns the check off.
    pub fn set_access_keys(&self, keys: Vec<AccessKey>) {
        self.service.set_access_keys(keys);
    }

    /// Stops listening and closes all connections. A second call does nothing.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            // The runtime has already reported a panic there.
            let _ = thread.join();
        }
        if let Some(ca) = &self.ca
            && ca.temporary
        {
            let _ = std::fs::remove_dir_all(&ca.directory);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Creates the certificates, in a temporary directory if none is given.
fn authority(options: &Options, address: SocketAddr) -> Result<(TlsAcceptor, Authority), Error> {
    let temporary = options.tls_dir.is_none();
    let directory = options.tls_dir.clone().unwrap_or_else(|| {
        // No other endpoint has this port while we listen on it.
        let name = format!("kubehose-firehose-{}-{}", std::process::id(), address.port());
        std::env::temp_dir().join(name)
    });
    let failed = |error: String| Error::Tls(directory.clone(), error);
    std::fs::create_dir_all(&directory).map_err(|error| failed(error.to_string()))?;
    let acceptor = tls::acceptor(&directory, &options.tls_names).map_err(|error| failed(error.to_string()))?;
    let file = directory.join(tls::CA_FILE);
    Ok((acceptor, Authority { directory, file, temporary }))
}

/// The address that clients on this machine connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Listens with SO_REUSEADDR (set by std), so that connections of an earlier listener do not block the address.
fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections until stopped. While the server refuses connections there is no listener.
async fn serve(
    listener: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    service: Arc<Service>,
    mut stopped: watch::Receiver<bool>,
) {
    /// How soon the listener reacts when a timed `down` begins or ends.
    const TICK: Duration = Duration::from_millis(10);
    let mut listener = TcpListener::from_std(listener).ok();
    loop {
        match (service.down(false), &listener) {
            (Down::Refuse, Some(_)) => listener = None,
            (Down::Off | Down::Reset, None) => {
                listener = listen(address).and_then(TcpListener::from_std).ok();
            }
            _ => {}
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = service.faults_changed.notified() => {}
            () = tokio::time::sleep(TICK) => {}
            stream = accepted => match stream {
                Ok((stream, _)) if service.down(true) != Down::Off => {
                    service.counters.fault("down");
                    reset(&stream);
                }
                Ok((stream, _)) => {
                    tokio::spawn(connection(stream, tls.clone(), Arc::clone(&service)));
                }
                // Out of file descriptors, or the peer has disconnected: keep listening in both cases.
                Err(_) => tokio::time::sleep(TICK).await,
            },
        }
    }
}

/// Serves one connection until it ends or a fault breaks it.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, service: Arc<Service>) {
    let _open = Open::new(&service);
    let _ = stream.set_nodelay(true);
    let breaker = Breaker::default();
    let stream = Breakable::new(stream, breaker.clone());
    // A fault may break the connection, so each connection needs its own service function.
    let answer = service_fn(|request| {
        let (service, breaker) = (Arc::clone(&service), breaker.clone());
        async move { Ok::<_, Infallible>(service.answer(request, &breaker).await) }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    // HTTP/2's default window of 64 KiB would make a body of several MB slow.
    http.http2().initial_stream_window_size(8 << 20).initial_connection_window_size(16 << 20).max_frame_size(1 << 20);
    match tls {
        Some(tls) => {
            // A client that does not trust the authority ends the handshake, and reports that error itself.
            if let Ok(stream) = tls.accept(stream).await {
                let served = http.serve_connection(TokioIo::new(stream), answer);
                tokio::select! { _ = served => {}, () = breaker.broken() => {} }
            }
        }
        None => {
            let served = http.serve_connection(TokioIo::new(stream), answer);
            tokio::select! { _ = served => {}, () = breaker.broken() => {} }
        }
    }
}

/// Serves only the administration.
async fn administrate(listener: std::net::TcpListener, service: Arc<Service>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(service.administrate(request).await) }
            });
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Counts a connection as open until it is dropped.
struct Open<'a>(&'a Service);

impl<'a> Open<'a> {
    fn new(service: &'a Service) -> Self {
        service.counters.lock().stats.connections += 1;
        service.counters.connections_open.fetch_add(1, Ordering::Relaxed);
        Open(service)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.counters.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}
