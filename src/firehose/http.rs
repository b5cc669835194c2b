//! The HTTP client of the calls and of the SDK: hyper over rustls with ring, HTTP/1.1 only, through the environment's proxy.
//!
//! The SDK's own client offers HTTP/2, where one cut connection makes the outcome of all its calls ambiguous, and each would
//! have to be sent again. With HTTP/1.1 a connection carries one call at a time, a cut makes at most one call
//! ambiguous, and a large body needs no second framing.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower_service::Service;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The most bytes of a reply that are read: 500 records' identifiers are about 100 KB.
const MAX_REPLY: usize = 4 * 1024 * 1024;

/// When an idle connection is closed: well before a load balancer closes it, so that no call uses a dead one.
const IDLE: Duration = Duration::from_secs(30);

/// The client of one output. Its connections are reused.
#[derive(Clone, Debug)]
pub struct Http1 {
    tls: Arc<ClientConfig>,
    proxy: Arc<Proxy>,
    /// One connector for each pair of timeouts: the SDK's providers of credentials ask for several.
    connectors: Arc<Mutex<HashMap<Timeouts, SharedHttpConnector>>>,
}

/// How long connecting and the reply may take.
type Timeouts = (Option<Duration>, Option<Duration>);

/// Why there can be no client.
#[derive(Debug)]
pub struct TlsError(rustls::Error);

impl std::fmt::Display for TlsError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "TLS cannot be set up: {}", self.0)
    }
}

impl Error for TlsError {}

impl Http1 {
    /// A client that trusts the system's authorities and those of `ca`, PEM that was checked when it was read.
    ///
    /// # Errors
    /// Only if rustls and ring had no version of TLS in common.
    pub fn new(ca: Option<&[u8]>) -> Result<Http1, TlsError> {
        let mut roots = RootCertStore::empty();
        // Certificates of the system that cannot be read are not trusted; `ca_file` may be enough without them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let own = CertificateDer::pem_slice_iter(ca.unwrap_or_default());
        roots.add_parsable_certificates(own.flatten());
        let mut provider = rustls::crypto::ring::default_provider();
        // AES-128 before AES-256: as strong for all that is known, and a quarter cheaper.
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
        let tls = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Http1 {
            tls: Arc::new(tls),
            proxy: Arc::new(Proxy::read(&|name| std::env::var(name).ok())),
            connectors: Arc::default(),
        })
    }

    /// A client with connections of its own; connecting may take as long as `connect`.
    pub fn client<B>(&self, connect: Option<Duration>) -> Client<HttpsConnector<Route>, B>
    where
        B: Body + Send,
        B::Data: Send,
    {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(connect);
        let route = Route { tcp, proxy: self.proxy.clone() };
        let https = HttpsConnectorBuilder::new().with_tls_config((*self.tls).clone()).https_or_http().enable_http1();
        Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(https.wrap_connector(route))
    }
}

/// A request's whole reply.
///
/// # Errors
/// hyper's own, which say whether a connection was made, and one for a reply of more than 4 MiB.
pub async fn reply(reply: ResponseFuture) -> Result<http::Response<Bytes>, BoxError> {
    let (head, body) = reply.await?.into_parts();
    let body = Limited::new(body, MAX_REPLY).collect().await?.to_bytes();
    Ok(http::Response::from_parts(head, body))
}

impl HttpClient for Http1 {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let connector = || Connector { client: self.client(timeouts.0), read: timeouts.1 };
        connectors.entry(timeouts).or_insert_with(|| SharedHttpConnector::new(connector())).clone()
    }
}

#[derive(Debug)]
struct Connector {
    client: Client<HttpsConnector<Route>, SdkBody>,
    read: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let (reply, read) = (reply(self.client.request(request)), self.read);
        HttpConnectorFuture::new(async move {
            let reply = match read {
                None => reply.await,
                Some(limit) => match tokio::time::timeout(limit, reply).await {
                    Ok(reply) => reply,
                    Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
                },
            };
            let reply = reply.map_err(ConnectorError::io)?.map(SdkBody::from);
            HttpResponse::try_from(reply).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Connects to the server directly or, for https, through the tunnel of a proxy (HTTPS_PROXY, ALL_PROXY, NO_PROXY).
#[derive(Clone, Debug)]
pub struct Route {
    tcp: TcpConnector,
    proxy: Arc<Proxy>,
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Service::<Uri>::poll_ready(&mut self.tcp, context).map_err(Into::into)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let proxy = match destination.scheme_str() {
            Some("https") => self.proxy.matcher.intercept(&destination),
            _ => None,
        };
        let Some(proxy) = proxy else {
            let connecting = self.tcp.call(destination);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let host = destination.authority().map(ToString::to_string).unwrap_or_default();
        if let Some(why) = self.proxy.unusable {
            let fault = ProxyFault { proxy: self.proxy.variable.to_owned(), destination: host, source: why.into() };
            return Box::pin(async move { Err(fault.into()) });
        }
        // This URL holds no user and password: hyper-util keeps them elsewhere.
        let told = format!("{} of {}", proxy.uri().to_string().trim_end_matches('/'), self.proxy.variable);
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(destination);
        Box::pin(async move {
            connecting.await.map_err(|error| ProxyFault { proxy: told, destination: host, source: error.into() }.into())
        })
    }
}

/// The proxy that the environment names for https, and the hosts that are reached without it.
#[derive(Debug)]
struct Proxy {
    matcher: Matcher,
    /// The variable that names the proxy.
    variable: &'static str,
    /// Why its value cannot be used, if so.
    unusable: Option<&'static str>,
}

impl Proxy {
    fn read(environment: &dyn Fn(&str) -> Option<String>) -> Proxy {
        let first = |names: &[&'static str]| {
            names
                .iter()
                .find_map(|name| environment(name).filter(|value| !value.is_empty()).map(|value| (*name, value)))
        };
        let proxy = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
        let (_, without) = first(&["NO_PROXY", "no_proxy"]).unwrap_or_default();
        let without: Vec<&str> = without.split([',', ' ']).filter(|entry| !entry.is_empty()).collect();
        // hyper-util's `*` matches every name but no address, and an endpoint may be an address.
        let Some((variable, url)) = proxy.filter(|_| !without.contains(&"*")) else {
            return Proxy { matcher: Matcher::builder().build(), variable: "", unusable: None };
        };
        // hyper-util knows `.domain` and `domain` (both match the domain and its subdomains), addresses and CIDR blocks.
        let known = |entry: &&str| {
            let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
            entry.trim_start_matches('[').trim_end_matches(']').to_owned()
        };
        let without = without.iter().map(known).collect::<Vec<_>>().join(",");
        let parsed = proxy_url(&url);
        let unusable = match parsed.as_ref().and_then(Uri::scheme_str) {
            Some("http") => None,
            // Calls through it are encrypted nevertheless.
            Some(_) => Some("only proxies with http:// are supported"),
            None => {
                Some("its value is not a URL such as http://proxy:3128 (write special characters of a password as %XX)")
            }
        };
        // hyper-util takes a value that it cannot read for no proxy, without an error.
        let url = parsed.filter(|_| unusable.is_none()).map_or("http://unusable".to_owned(), |url| url.to_string());
        Proxy { matcher: Matcher::builder().https(url).no(without).build(), variable, unusable }
    }
}

/// A proxy's URL in a form that every parser reads alike: an `@` in user or password becomes `%40`, because
/// hyper-util ends the password at the first one, and shows the text after it. `None` if it is not such a URL: with `#`, `/` or `?`
/// in a password, the text before them would be read as host and port, and shown.
fn proxy_url(url: &str) -> Option<Uri> {
    let uri: Uri = url.parse().ok().filter(|_| !url.contains('#'))?;
    let authority = uri.authority()?.as_str();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let fits = matches!(uri.path(), "" | "/")
        && uri.query().is_none()
        && port.is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    let user = user.map(|user| user.replace('@', "%40") + "@").unwrap_or_default();
    let url = format!("{}://{user}{host}/", uri.scheme_str().unwrap_or("http"));
    url.parse().ok().filter(|_| fits)
}

/// A proxy that refused a connection. Its text names the proxy, never its password.
#[derive(Debug)]
pub struct ProxyFault {
    proxy: String,
    destination: String,
    source: BoxError,
}

impl std::fmt::Display for ProxyFault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "no connection to {} through the proxy {}", self.destination, self.proxy)
    }
}

impl Error for ProxyFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// Whether an error of a call says that no connection was made, so that nothing can have been sent.
pub fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return error.is_connect();
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_environment_says_of_proxies_is_understood() {
        // The endpoint, the variables, and the proxy, if it is to be used.
        let proxy_of = |endpoint: &str, variables: &[(&str, &str)]| {
            let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let proxy = Proxy::read(&get);
            assert_eq!(proxy.unusable, None);
            proxy.matcher.intercept(&endpoint.parse().unwrap()).map(|proxy| proxy.uri().to_string())
        };
        let firehose = "https://firehose.eu-west-1.amazonaws.com";
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            for value in ["http://proxy:3128", "proxy:3128", "http://user:word@proxy:3128/"] {
                assert_eq!(proxy_of(firehose, &[(name, value)]).unwrap(), "http://proxy:3128/", "{name}={value}");
            }
        }
        // The upper case goes first, unless it is empty; http's is not ours.
        let two = [("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")];
        assert_eq!(proxy_of(firehose, &two).unwrap(), "http://a:1/");
        assert_eq!(proxy_of(firehose, &[("HTTPS_PROXY", ""), two[1]]).unwrap(), "http://b:1/");
        assert_eq!(proxy_of(firehose, &[("HTTP_PROXY", "http://a:1")]), None);
        assert_eq!(proxy_of(firehose, &[]), None);
        for (endpoint, round, through) in [
            (
                firehose,
                "firehose.eu-west-1.amazonaws.com,.amazonaws.com,amazonaws.com,eu-west-1.amazonaws.com,*.amazonaws.com,\
                 .AmazonAWS.com,*",
                "firehose.us-east-1.amazonaws.com,aws.com,.zonaws.com,amazonaws,10.0.0.0/8,firehose",
            ),
            ("https://10.1.2.3:8443", "10.1.2.3,10.0.0.0/8,10.1.2.0/24,*", "10.1.2.4,10.2.0.0/16,.3,2.3"),
            ("https://[fd00::7]", "fd00::7,[fd00::7],fd00::/8,*", "fd00::8,fe80::/10"),
            ("https://localhost:4573", "localhost,.localhost,*", "127.0.0.1,local"),
        ] {
            for (list, goes_round) in [(round, true), (through, false)] {
                for entry in list.split(',').map(str::trim) {
                    for list in [entry.to_owned(), format!("example.com, {entry}"), format!("example.com {entry}")] {
                        for name in ["NO_PROXY", "no_proxy"] {
                            let found = proxy_of(endpoint, &[("HTTPS_PROXY", "proxy:1"), (name, &list)]);
                            assert_eq!(found.is_none(), goes_round, "{endpoint}, {name}={list}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_not_passed_by() {
        for value in ["https://proxy:3128", "socks5://proxy:1080", "http://", "a b", "http://user:pass#word@proxy:3128"]
        {
            let get = |name: &str| match name {
                "HTTPS_PROXY" => Some(value.to_owned()),
                "NO_PROXY" => Some("round.example".to_owned()),
                _ => None,
            };
            let proxy = Proxy::read(&get);
            assert!(proxy.unusable.is_some(), "{value}");
            assert!(proxy.matcher.intercept(&"https://firehose.example".parse().unwrap()).is_some(), "{value}");
            assert!(proxy.matcher.intercept(&"https://round.example".parse().unwrap()).is_none(), "{value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Each part of user and password is `SECRET` and a number, with whatever stands between them.
        #[test]
        fn no_part_of_a_proxys_user_and_password_is_shown(
            scheme in prop::sample::select(vec!["http://", "", "https://", "socks5://", "HTTP://", "http:", "//"]),
            parts in prop::collection::vec(
                prop::sample::select(vec!["@", "%40", ":", "%3A", ".", "-", "@@", "%", "%2F", "/", "#", "?", "[", "]", " ", "é", "\\", ":80@", "@h:1/"]),
                0..4,
            ),
            tail in prop::sample::select(vec!["@127.0.0.1:1", "@127.0.0.1:1/", "@[::1]:1", "@localhost:1", "@", ""]),
        ) {
            let user: String = parts.iter().enumerate().map(|(n, part)| format!("SECRET{n}{part}")).collect();
            let url = format!("{scheme}{user}SECRET{tail}");
            let get = |name: &str| (name == "HTTPS_PROXY").then(|| url.clone());
            let proxy = Proxy::read(&get);
            let shown = format!("{proxy:?}");
            // Without an `@` behind it, the last part is the name of a host.
            if !tail.is_empty() || proxy.unusable.is_some() {
                prop_assert!(!shown.contains("SECRET"), "{url}: {shown}");
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut tcp = TcpConnector::new();
                tcp.enforce_http(false);
                let mut route = Route { tcp, proxy: Arc::new(proxy) };
                let shown = format!("{route:?}");
                prop_assert!(!shown.contains("SECRET"), "{url}: {shown}");
                let error = runtime.block_on(route.call("https://firehose.example".parse().unwrap())).unwrap_err();
                let shown = format!("{error:?} {}", super::super::told(&*error));
                prop_assert!(!shown.to_ascii_uppercase().contains("SECRET"), "{url}: {shown}");
            }
        }
    }

    #[test]
    fn the_last_at_sign_of_a_proxys_url_ends_its_password() {
        for (url, user_and_password) in [
            ("http://user:pa@ss@proxy:3128", "user:pa@ss"),
            ("user:pa@ss@proxy:3128", "user:pa@ss"),
            ("http://us@er:pa%40@ss%3a@proxy:3128/", "us@er:pa@@ss:"),
            ("http://user:pa%40ss@proxy:3128", "user:pa@ss"),
            ("http://user@proxy:3128", "user:"),
        ] {
            let proxy = Proxy::read(&|name| (name == "HTTPS_PROXY").then(|| url.to_owned()));
            let found = proxy.matcher.intercept(&"https://firehose.example".parse().unwrap()).unwrap();
            assert_eq!((proxy.unusable, found.uri().to_string()), (None, "http://proxy:3128/".to_owned()), "{url}");
            let expected = format!("Basic {}", base64_simd::STANDARD.encode_to_string(user_and_password));
            assert_eq!(found.basic_auth().unwrap().to_str().unwrap(), expected, "{url}");
        }
    }
}
