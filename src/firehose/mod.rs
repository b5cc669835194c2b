//! One PutRecordBatch call → the outcome of each record, or a fault and its fix.

mod access;
mod credentials;
mod foreign;
pub(crate) mod http;
pub mod reply;

pub use crate::firehose::reply::Reply;

use crate::firehose::access::{Access, CONNECT_TIMEOUT, Signer};
use crate::firehose::credentials::{Credentials, Found, Source, credentials};
use crate::firehose::foreign::shown;
use crate::firehose::http::{Http1, ProxyFault, Route, TlsError, never_connected};
use ::http::{HeaderMap, Request, Response};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::time::timeout;

/// If the clocks differ by this much, refused credentials are blamed on the clock. The SDK has the same threshold, just
/// below the five minutes that the service allows.
const CLOCK_OFF: Duration = Duration::from_secs(4 * 60);

/// Where calls go, and with which credentials.
#[derive(Clone, Debug)]
pub struct FirehoseConfig {
    /// The AWS region.
    pub region: String,
    /// The stream's name, or the template of names.
    pub delivery_stream: String,
    /// URL of Firehose's endpoint.
    pub endpoint: Option<String>,
    /// URL of the endpoint of STS.
    pub sts_endpoint: Option<String>,
    /// The role to assume.
    pub role_arn: Option<String>,
    /// Its external ID.
    pub external_id: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// Additional certificate authorities, PEM, read at Init.
    pub ca: Option<Vec<u8>>,
    /// How long one call may take.
    pub request_timeout: Duration,
}

/// Why a whole call failed.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What to do about it.
    pub class: Class,
    /// Whether the service may have accepted the records nevertheless, so that sending them again may repeat them.
    pub ambiguous: bool,
    /// What happened, for the log and dead letters: without control characters, and some hundred bytes at most.
    pub text: String,
}

/// The kinds of faults, by what kubehose does about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Throttled: the same batch later, and fewer calls at a time.
    Throttled,
    /// The service or the network failed: the same batch later.
    Service,
    /// The service never accepts this batch as it is: look for the record that it refuses.
    Poison,
    /// Nothing is accepted until somebody fixes the set-up: keep the data.
    Setup(Setup),
}

/// What has to be fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// There are no credentials, or looking them up fails.
    Credentials,
    /// The credentials are not valid, or no longer valid.
    Refused,
    /// The credentials lack the permission.
    Denied,
    /// The stream does not exist in this account and region.
    Stream,
    /// The endpoint cannot be reached.
    Unreachable,
    /// The proxy refuses the connection.
    Proxy,
    /// The endpoint's certificate is not trusted.
    Untrusted,
    /// Any other error about the stream or the request.
    Other,
}

macro_rules! labels {
    ($($variant:ident = $name:literal,)+) => {
        /// What the metrics count a failed call as: the label `class`. Several classes may share one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Label {
            $(#[doc = concat!("`", $name, "`")] $variant,)+
        }

        impl Label {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Label] = &[$(Label::$variant,)+];

            /// As the metrics show it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Label::$variant => $name,)+
                }
            }
        }
    };
}

labels! {
    Throttled = "throttled",
    Service = "service",
    Poison = "poison",
    Credentials = "credentials",
    Denied = "denied",
    Stream = "stream",
    Connection = "connection",
    Setup = "setup",
}

impl Class {
    /// What the metrics count it as.
    pub fn label(self) -> Label {
        match self {
            Class::Throttled => Label::Throttled,
            Class::Service => Label::Service,
            Class::Poison => Label::Poison,
            Class::Setup(Setup::Credentials | Setup::Refused) => Label::Credentials,
            Class::Setup(Setup::Denied) => Label::Denied,
            Class::Setup(Setup::Stream) => Label::Stream,
            Class::Setup(Setup::Unreachable | Setup::Proxy | Setup::Untrusted) => Label::Connection,
            Class::Setup(Setup::Other) => Label::Setup,
        }
    }

    /// The name of its label.
    pub fn name(self) -> &'static str {
        self.label().name()
    }
}

impl Setup {
    /// What the user can do.
    pub fn fix(self, stream: &str, config: &FirehoseConfig) -> String {
        let region = &config.region;
        match self {
            Setup::Credentials => credentials_fix(config, &|name| std::env::var(name).ok()),
            Setup::Refused => format!("check that the credentials belong to an existing user or role, have not expired, and that the clock is right; the region signed for is {region}"),
            Setup::Denied => format!("allow firehose:PutRecordBatch on arn:aws:firehose:{region}:<account>:deliverystream/{stream} (kubehose iam-policy writes the policy), and the key of its encryption if it has one"),
            Setup::Stream => format!("check 'delivery_stream' and 'region': {stream} in {region}, in the account of the credentials"),
            Setup::Unreachable => format!("check 'region' ({region}), 'endpoint', DNS, the security group, and the VPC endpoint or proxy (HTTPS_PROXY, NO_PROXY)"),
            Setup::Proxy => "check that the proxy of HTTPS_PROXY (or ALL_PROXY) runs and allows CONNECT to that host and port, and that its user and password are right (http://user:password@host:port); hosts in NO_PROXY are reached without it".to_owned(),
            Setup::Untrusted => "set 'ca_file' to the certificate of the authority that signed the endpoint's certificate".to_owned(),
            Setup::Other => "look at the stream in the AWS console; its source must be Direct PUT".to_owned(),
        }
    }
}

/// What to check when there are no credentials: the sources that are set up or, if none is, those that could be.
fn credentials_fix(config: &FirehoseConfig, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut fixes = Vec::new();
    let sts = config.sts_endpoint.as_ref().map(|url| format!(", and that 'sts_endpoint' ({url}) answers"));
    let sts = sts.unwrap_or_default();
    if let Some(role) = &config.role_arn {
        fixes.push(format!(
            "check 'role_arn' ({role}), its trust policy, which must let these credentials call sts:AssumeRole with this 'external_id'{sts}"
        ));
    }
    if let Some(profile) = &config.profile {
        fixes.push(format!("check 'profile' ({profile}) in the shared configuration files"));
    }
    if let Some(file) = environment("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let role = environment("AWS_ROLE_ARN").unwrap_or_default();
        fixes.push(format!(
            "check AWS_ROLE_ARN ({role}), its trust policy, which must name the cluster's OIDC provider and the service account, and AWS_WEB_IDENTITY_TOKEN_FILE ({file}){sts}"
        ));
    }
    for name in ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        if let Some(url) = environment(name) {
            fixes.push(format!(
                "check what answers at {name} ({url}): the EKS Pod Identity agent and association, or the ECS task's role"
            ));
        }
    }
    if fixes.is_empty() {
        return "give the pod or host a role (IRSA, EKS Pod Identity, ECS task role, instance profile), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or 'profile'".to_owned();
    }
    fixes.join("; ")
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// A client for one delivery stream.
pub struct Firehose {
    config: FirehoseConfig,
    client: Client<HttpsConnector<Route>, Full<Bytes>>,
    credentials: Credentials<Signer>,
    /// How far the service's clock is ahead of ours, in seconds, if it has refused a call for that.
    ahead: AtomicI64,
}

impl Firehose {
    /// A client, and the task that looks up its credentials, which calls wait for. Nothing is resolved or connected before the first call.
    ///
    /// # Errors
    /// See [`Http1::new`].
    pub fn new(config: FirehoseConfig) -> Result<(Firehose, impl Future<Output = ()> + Send + 'static), TlsError> {
        let http = Http1::new(config.ca.as_deref())?;
        let client = http.client(Some(CONNECT_TIMEOUT));
        let (credentials, lookups) = credentials(config.request_timeout);
        let task = lookups.run(Chain { access: None, config: config.clone(), http });
        Ok((Firehose { config, client, credentials, ahead: AtomicI64::new(0) }, task))
    }

    /// Forgets the credentials, so that the next call has them looked up with new providers: the SDK's read files and
    /// environment only once.
    pub fn forget_credentials(&self) {
        self.credentials.renew();
    }

    /// Whether credentials are being looked up, which goes on after the call that asked for new ones in time.
    pub fn looks_up_credentials(&self) -> bool {
        self.credentials.are_looked_up()
    }

    /// Makes one PutRecordBatch call with a finished body of `records` records.
    ///
    /// # Errors
    /// A [`Fault`] when the service accepted none of them, or did not say which.
    pub async fn put(&self, body: Bytes, records: usize) -> Result<Reply, Fault> {
        let limit = self.config.request_timeout;
        let request = self.request(body).await?;
        match timeout(limit, http::reply(self.client.request(request))).await {
            Ok(Ok(reply)) if reply.status().is_success() => read_reply(reply.body(), records),
            Ok(Ok(reply)) => Err(self.read_fault(&reply)),
            Ok(Err(error)) => Err(not_answered(&*error)),
            Err(_) => {
                let text = format!("no reply within request_timeout ({limit:?})");
                Err(Fault { class: Class::Service, ambiguous: true, text })
            }
        }
    }

    async fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Fault> {
        let signer = self.credentials.get().await?;
        let (ahead, now) = (self.ahead.load(Relaxed), SystemTime::now());
        let apart = Duration::from_secs(ahead.unsigned_abs());
        let time = if ahead < 0 { now - apart } else { now + apart };
        signer.request(body, time).map_err(|error| setup(Setup::Unreachable, &*error))
    }

    /// The fault that a reply with an error status means.
    fn read_fault(&self, reply: &Response<Bytes>) -> Fault {
        let status = reply.status().as_u16();
        let (code, message) = read_error(reply.headers(), reply.body());
        let mut text = shown(&match (&*code, &*message) {
            ("", "") => {
                format!("HTTP status {status} without an error of Firehose: a proxy or gateway may have answered")
            }
            ("", message) => format!("HTTP status {status}: {message}"),
            (code, message) => format!("{code}: {message}"),
        });
        let class = classify_code(&code, &message, status);
        if matches!(class, Class::Setup(Setup::Refused | Setup::Denied)) {
            let ahead = clock_ahead(reply.headers());
            // The clock may have been set since.
            self.ahead.store(ahead.unwrap_or(0), Relaxed);
            if let Some(ahead) = ahead {
                let (minutes, side) = (ahead.unsigned_abs() / 60, if ahead > 0 { "behind" } else { "ahead of" });
                text = format!(
                    "{text} (this machine's clock is {minutes} minutes {side} the service's, and is corrected for)"
                );
            }
        }
        Fault { class, ambiguous: may_have_accepted(status, class), text }
    }
}

/// The SDK's chain of credentials; `access` holds what it has read of the environment and the files.
struct Chain {
    access: Option<Access>,
    config: FirehoseConfig,
    http: Http1,
}

impl Source<Signer> for Chain {
    async fn look(&mut self, renew: bool) -> Result<Found<Signer>, Fault> {
        if renew {
            self.access = None;
        }
        let access = match &mut self.access {
            Some(access) => access,
            empty => {
                let access = Access::new(&self.config, &self.http).await;
                empty.insert(access.map_err(|error| setup(Setup::Unreachable, &*error))?)
            }
        };
        access.look().await.map_err(|error| match caused_by::<ProxyFault>(&error) {
            Some(proxy) => setup(Setup::Proxy, proxy),
            None => setup(Setup::Credentials, &error),
        })
    }
}

/// Reads a reply with a success status; one that contradicts itself is ambiguous.
fn read_reply(body: &[u8], records: usize) -> Result<Reply, Fault> {
    reply::read(body, records).map_err(|text| Fault { class: Class::Service, ambiguous: true, text: shown(&text) })
}

/// Whether the service may have accepted the records of a call that it answered with this error: a server error does not tell
/// how far the call came, except for the documented throttling.
fn may_have_accepted(status: u16, class: Class) -> bool {
    status >= 500 && class != Class::Throttled
}

/// How many seconds the service's clock is ahead of ours, if they are far apart.
fn clock_ahead(headers: &HeaderMap) -> Option<i64> {
    let date = DateTime::from_str(headers.get("date")?.to_str().ok()?, Format::HttpDate).ok()?;
    let ahead = date.secs() - DateTime::from(SystemTime::now()).secs();
    (ahead.unsigned_abs() >= CLOCK_OFF.as_secs()).then_some(ahead)
}

/// Code and message of an error: Firehose's JSON, or the XML of a gateway.
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>
fn read_error(headers: &HeaderMap, body: &[u8]) -> (String, String) {
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return read_xml(&String::from_utf8_lossy(body));
    };
    let first = |names: &[&str]| names.iter().find_map(|name| json.get(name)?.as_str().map(str::to_owned));
    let header = || headers.get("x-amzn-errortype")?.to_str().ok().map(str::to_owned);
    let code = header().or_else(|| first(&["__type", "code"])).unwrap_or_default();
    // `namespace#Code:http://…`
    let code = code.split(':').next().and_then(|code| code.rsplit('#').next()).unwrap_or_default();
    (code.to_owned(), first(&["message", "Message", "errorMessage"]).unwrap_or_default())
}

/// The fault of a call that was not sent, because somebody has to fix something.
fn setup(what: Setup, error: &(dyn Error + 'static)) -> Fault {
    Fault { class: Class::Setup(what), ambiguous: false, text: told(error) }
}

/// The fault of a call without a complete reply.
fn not_answered(error: &(dyn Error + 'static)) -> Fault {
    if let Some(proxy) = caused_by::<ProxyFault>(error) {
        return setup(Setup::Proxy, proxy);
    }
    let text = told(error);
    let lower = text.to_ascii_lowercase();
    if lower.contains("certificate") || lower.contains("unknownissuer") {
        return setup(Setup::Untrusted, error);
    }
    match never_connected(error) {
        true => setup(Setup::Unreachable, error),
        false => Fault { class: Class::Service, ambiguous: true, text },
    }
}

/// The service's own codes. <https://docs.aws.amazon.com/firehose/latest/APIReference/CommonErrors.html>
fn classify_code(code: &str, message: &str, status: u16) -> Class {
    match code {
        "ServiceUnavailableException"
        | "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException"
        | "SlowDown" => Class::Throttled,
        "InternalFailure"
        | "InternalServerError"
        | "InternalServiceError"
        | "ServiceUnavailable"
        | "RequestTimeout" => Class::Service,
        // Firehose also answers this for streams whose source is not Direct PUT.
        "InvalidArgumentException" if message.contains("not permitted") || message.contains("AsSource") => {
            Class::Setup(Setup::Other)
        }
        "InvalidArgumentException" | "ValidationException" | "SerializationException" => Class::Poison,
        "ResourceNotFoundException" => Class::Setup(Setup::Stream),
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "UnauthorizedOperation" | "OptInRequired" => {
            Class::Setup(Setup::Denied)
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "RequestExpired"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "AuthFailure" => Class::Setup(Setup::Refused),
        _ => match status {
            413 => Class::Poison,
            429 => Class::Throttled,
            408 | 500.. => Class::Service,
            401 | 403 => Class::Setup(Setup::Denied),
            _ => Class::Setup(Setup::Other),
        },
    }
}

/// Code and message of an error in XML, as AWS's other services and gateways write it.
fn read_xml(text: &str) -> (String, String) {
    let read = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    (read("Code").unwrap_or_default(), read("Message").unwrap_or_default())
}

/// The first error of this type in the chain.
fn caused_by<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and what caused it. Not the SDK's own text, which ends with a dump of everything that there is.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let more = error.to_string();
        // Many repeat what caused them.
        if !text.contains(&more) {
            text = if text.is_empty() { more } else { format!("{text}: {more}") };
        }
        next = error.source();
    }
    shown(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_have_their_class() {
        for (code, message, status, class) in [
            ("ServiceUnavailableException", "Slow down.", 503, Class::Throttled),
            ("InternalFailure", "", 500, Class::Service),
            ("", "", 502, Class::Service),
            ("", "", 429, Class::Throttled),
            ("InvalidArgumentException", "Record size exceeds", 400, Class::Poison),
            (
                "InvalidArgumentException",
                "This operation is not permitted on KinesisStreamAsSource delivery stream type.",
                400,
                Class::Setup(Setup::Other),
            ),
            ("ResourceNotFoundException", "", 400, Class::Setup(Setup::Stream)),
            ("AccessDeniedException", "", 400, Class::Setup(Setup::Denied)),
            ("ExpiredTokenException", "", 400, Class::Setup(Setup::Refused)),
            ("InvalidKMSResourceException", "", 400, Class::Setup(Setup::Other)),
            ("SomethingNew", "", 400, Class::Setup(Setup::Other)),
        ] {
            assert_eq!(classify_code(code, message, status), class, "{code}");
        }
    }

    #[test]
    fn a_server_error_may_have_accepted_the_records_unless_it_is_a_documented_refusal() {
        for status in 400..600 {
            for (code, refusal) in [
                ("ServiceUnavailableException", true),
                ("InternalFailure", false),
                ("AccessDenied", false),
                ("", false),
            ] {
                let class = classify_code(code, "", status);
                assert_eq!(may_have_accepted(status, class), status >= 500 && !refusal, "{status} {code}");
            }
        }
    }

    #[test]
    fn an_error_is_read_wherever_it_stands() {
        let header = |code: &str| HeaderMap::from_iter([("x-amzn-errortype".parse().unwrap(), code.parse().unwrap())]);
        let of = |headers: &HeaderMap, body: &str| read_error(headers, body.as_bytes());
        let none = HeaderMap::new();
        for body in [
            r#"{"__type":"com.amazonaws.firehose#AccessDeniedException","message":"no"}"#,
            r#"{"__type":"AccessDeniedException:http://internal.amazon.com/coral/","Message":"no"}"#,
            r#"{"code":"AccessDeniedException","message":"no"}"#,
            "<ErrorResponse><Error><Code>AccessDeniedException</Code><Message>no</Message></Error></ErrorResponse>",
        ] {
            assert_eq!(of(&none, body), ("AccessDeniedException".to_owned(), "no".to_owned()), "{body}");
        }
        assert_eq!(of(&header("Throttling:x"), "{}"), ("Throttling".to_owned(), String::new()));
        for body in ["", "{}", "[1]", "null", "<html>502</html>", "{\"message\":7}"] {
            assert_eq!(of(&none, body), (String::new(), String::new()), "{body}");
        }
    }

    /// A client that makes no call.
    fn idle() -> Firehose {
        let options = |name: &str| match name {
            "region" => Some("eu-west-1".to_owned()),
            "delivery_stream" => Some("a-stream".to_owned()),
            _ => None,
        };
        Firehose::new(crate::options::Config::read(&options, &|_| None).unwrap().firehose).unwrap().0
    }

    /// An error of the transport that says this.
    #[derive(Debug)]
    struct Says(String);

    impl fmt::Display for Says {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(&self.0)
        }
    }

    impl Error for Says {}

    proptest! {
        #[test]
        fn nothing_that_an_endpoint_says_goes_into_a_text_long_or_with_control_characters(
            part in "\\PC{0,20}[\x00-\x1f\x7f\u{80}-\u{9f}]{0,3}[aé日𝄞]{0,20}[\r\n\t]{0,2}",
            times in prop_oneof![Just(1_usize), Just(40), Just(5000)],
            status in prop_oneof![Just(400_u16), Just(403), Just(500)],
        ) {
            let said = part.repeat(times);
            let json = serde_json::Value::from(said.as_str());
            let xml = said.replace('<', "");
            let firehose = idle();
            let answer = |body: String| Response::builder().status(status).body(Bytes::from(body)).unwrap();
            let mut texts = Vec::new();
            for body in [
                format!(r#"{{"__type":"InternalFailure","message":{json}}}"#),
                format!(r#"{{"__type":{json},"message":{json}}}"#),
                format!(r#"{{"message":{json}}}"#),
                format!("<Error><Code>{xml}</Code><Message>{xml}</Message></Error>"),
                said.clone(),
            ] {
                texts.push(firehose.read_fault(&answer(body)).text);
            }
            // Errors of what reads the reply repeat what it holds.
            for body in [
                format!(r#"{{"FailedPutCount":{json}}}"#),
                format!(r#"{{"FailedPutCount":0,"RequestResponses":{json}}}"#),
                json.to_string(),
            ] {
                texts.push(read_reply(body.as_bytes(), 1).unwrap_err().text);
            }
            let body = format!(r#"{{"FailedPutCount":1,"RequestResponses":[{{"ErrorCode":{json}}}]}}"#);
            texts.push(read_reply(body.as_bytes(), 1).unwrap().refused.remove(0).code);
            texts.push(not_answered(&Says(said.clone())).text);
            texts.push(setup(Setup::Credentials, &Says(said.clone())).text);
            for text in texts {
                prop_assert!(text.len() <= foreign::LIMIT && !text.contains(char::is_control), "{} bytes: {:?}", text.len(), text);
            }
        }
    }

    #[test]
    fn the_clock_is_told_of_behind_the_longest_message() {
        let date = "Mon, 01 Jan 2001 00:00:00 GMT";
        let reply = Response::builder()
            .status(403)
            .header("date", date)
            .body(Bytes::from(format!(r#"{{"__type":"InvalidSignatureException","message":"{}"}}"#, "x".repeat(9000))))
            .unwrap();
        let text = idle().read_fault(&reply).text;
        assert!(text.contains("this machine's clock is") && text.len() < 2 * foreign::LIMIT, "{text}");
    }

    #[test]
    fn a_call_does_not_carry_the_state_of_what_is_seldom_done() {
        let firehose = idle();
        let call = firehose.put(Bytes::new(), 1);
        assert!(size_of_val(&call) <= 1024, "{} bytes are moved about for each call", size_of_val(&call));
    }
}
