//! The AWS client: credentials, endpoint, TLS, proxy; and ONE PutRecordBatch call → what became of each record.
//!
//! The SDK does what is not our trade. What it would do with a batch's records, building and writing them one by one, is
//! passed by: the body is finished already and takes the serialized one's place before the request is signed.

use crate::config::FirehoseConfig;
use crate::http::{Http1, ProxyFault, TlsError, never_connected};
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_firehose::Client;
use aws_sdk_firehose::error::SdkError;
use aws_sdk_firehose::operation::put_record_batch::{PutRecordBatchError, PutRecordBatchOutput};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::origin::Origin;
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a connection may take to be made; the SDK's own default.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

/// What became of a batch that the service answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// The records that it did not take, by their index in the batch; empty if it took all.
    pub refused: Vec<Refused>,
}

/// A record that was not taken.
#[derive(Debug)]
pub struct Refused {
    /// Its index in the batch.
    pub index: usize,
    /// The service's code, such as `ServiceUnavailableException`.
    pub code: String,
}

/// Why a call as a whole came to nothing.
#[derive(Debug)]
pub struct Fault {
    /// What to do about it.
    pub class: Class,
    /// Whether the service may have taken the records all the same, so that sending them again may repeat them.
    pub unclear: bool,
    /// What happened, for the log.
    pub text: String,
}

/// The kinds of faults, by what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Too much at a time: the same batch, later, and fewer calls at once.
    Throttled,
    /// The service or the way to it failed: the same batch, later.
    Service,
    /// The service will never take this batch as it is: look for the record that it does not like.
    Poison,
    /// Nothing will be taken until somebody mends something: keep the data.
    Setup(Setup),
}

/// What has to be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// There are no credentials, or the way to them fails.
    Credentials,
    /// There are, and they are not valid (any more).
    Refused,
    /// They are valid, and lack the permission.
    Denied,
    /// The stream does not exist, or not here.
    Stream,
    /// The endpoint cannot be reached.
    Unreachable,
    /// The proxy does not let a connection through.
    Proxy,
    /// The endpoint's certificate is not trusted.
    Untrusted,
    /// The service says something else about the stream or the request.
    Other,
}

impl Class {
    /// Its name among the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Throttled => "throttled",
            Class::Service => "service",
            Class::Poison => "poison",
            Class::Setup(Setup::Credentials | Setup::Refused) => "credentials",
            Class::Setup(Setup::Denied) => "denied",
            Class::Setup(Setup::Stream) => "stream",
            Class::Setup(Setup::Unreachable | Setup::Proxy | Setup::Untrusted) => "connection",
            Class::Setup(Setup::Other) => "setup",
        }
    }
}

impl Setup {
    /// What the user can do.
    pub fn cure(self, config: &FirehoseConfig) -> String {
        let (stream, region) = (&config.delivery_stream, &config.region);
        match self {
            Setup::Credentials => credentials_cure(config, &|name| std::env::var(name).ok()),
            Setup::Refused => format!("check that the credentials belong to an existing user or role, have not expired, and that the clock is right; the region signed for is {region}"),
            Setup::Denied => format!("allow firehose:PutRecordBatch on arn:aws:firehose:{region}:<account>:deliverystream/{stream} (kubehose iam-policy writes the policy), and the key of its encryption if it has one"),
            Setup::Stream => format!("check 'delivery_stream' and 'region': {stream} in {region}, in the account of the credentials"),
            Setup::Unreachable => format!("check 'region' ({region}), 'endpoint', DNS, the security group, and the VPC endpoint or proxy (HTTPS_PROXY, NO_PROXY)"),
            Setup::Proxy => "see that the proxy of HTTPS_PROXY (or ALL_PROXY) runs and allows CONNECT to that host and port, and that its user and password are right (http://user:password@host:port); NO_PROXY names what is reached without it".to_owned(),
            Setup::Untrusted => "set 'ca_file' to the certificate of the authority that signed the endpoint's".to_owned(),
            Setup::Other => "see the stream in the AWS console; its source must be Direct PUT".to_owned(),
        }
    }
}

/// What to look at when no credentials can be had: the sources that are set up, or, without any, what can be.
fn credentials_cure(config: &FirehoseConfig, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut cures = Vec::new();
    let sts = config.sts_endpoint.as_ref().map(|url| format!(", and that 'sts_endpoint' ({url}) answers"));
    let sts = sts.unwrap_or_default();
    if let Some(role) = &config.role_arn {
        cures.push(format!(
            "check 'role_arn' ({role}), its trust policy, which must let these credentials call sts:AssumeRole with this 'external_id'{sts}"
        ));
    }
    if let Some(profile) = &config.profile {
        cures.push(format!("check 'profile' ({profile}) in the shared configuration files"));
    }
    if let Some(file) = environment("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let role = environment("AWS_ROLE_ARN").unwrap_or_default();
        cures.push(format!(
            "check AWS_ROLE_ARN ({role}), its trust policy, which must name the cluster's OIDC provider and the service account, and AWS_WEB_IDENTITY_TOKEN_FILE ({file}){sts}"
        ));
    }
    for name in ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        if let Some(url) = environment(name) {
            cures.push(format!(
                "check what answers at {name} ({url}): the EKS Pod Identity agent and association, or the ECS task's role"
            ));
        }
    }
    if cures.is_empty() {
        return "give the pod or host a role (IRSA, EKS Pod Identity, ECS task role, instance profile), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or 'profile'".to_owned();
    }
    cures.join("; ")
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// The way to one delivery stream.
pub struct Firehose {
    config: FirehoseConfig,
    http: Http1,
    /// Made when first needed, and anew after the credentials were refused.
    client: Mutex<Option<Client>>,
}

impl Firehose {
    /// Nothing is resolved or connected before the first call.
    ///
    /// # Errors
    /// See [`Http1::new`].
    pub fn new(config: FirehoseConfig) -> Result<Firehose, TlsError> {
        let http = Http1::new(config.ca.as_deref())?;
        Ok(Firehose { config, http, client: Mutex::new(None) })
    }

    /// Forgets the client, so that the next call looks for credentials from the beginning: the SDK's providers read
    /// files and environment only once.
    pub async fn forget_credentials(&self) {
        *self.client.lock().await = None;
    }

    /// Makes one PutRecordBatch call with a finished body of `records` records.
    ///
    /// # Errors
    /// A [`Fault`] when the service took none of them, or did not say what it took.
    pub async fn put(&self, body: Bytes, records: usize) -> Result<Answer, Fault> {
        let client = self.client().await;
        let result = client
            .put_record_batch()
            .delivery_stream_name(&self.config.delivery_stream)
            .set_records(Some(Vec::new()))
            .customize()
            .mutate_request(move |request| {
                request.headers_mut().insert("content-length", body.len().to_string());
                *request.body_mut() = SdkBody::from(body.clone());
            })
            .send()
            .await;
        match result {
            Ok(output) => read_answer(&output, records),
            Err(error) => Err(classify(&error)),
        }
    }

    async fn client(&self) -> Client {
        let mut slot = self.client.lock().await;
        if let Some(client) = &*slot {
            return client.clone();
        }
        let client = self.connect().await;
        *slot = Some(client.clone());
        client
    }

    async fn connect(&self) -> Client {
        let region = Region::new(self.config.region.clone());
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .http_client(self.http.clone())
            // What is to be sent again, and when, is decided in delivery.rs.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_timeout(self.config.request_timeout)
                    .build(),
            );
        if let Some(profile) = &self.config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = &self.config.sts_endpoint {
            loader = loader.profile_files(self.sts_in_profile(endpoint));
        }
        let base = loader.load().await;
        let mut config = aws_sdk_firehose::config::Builder::from(&base);
        if let Some(role) = &self.config.role_arn {
            config = config.credentials_provider(self.assume(role, &base, region).await);
        }
        if let Some(endpoint) = &self.config.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Client::from_conf(config.build())
    }

    /// The shared configuration files, and one more that gives the profile in use this endpoint of STS. The SDK has no
    /// other way to tell its web identity and profile providers, which make STS clients of their own.
    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
    fn sts_in_profile(&self, endpoint: &str) -> EnvConfigFiles {
        let from_environment = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        let name = self.config.profile.clone().or_else(from_environment).unwrap_or_else(|| "default".to_owned());
        let file = format!(
            "[profile {name}]\nservices = kubehose-sts\n[services kubehose-sts]\nsts =\n  endpoint_url = {endpoint}\n"
        );
        EnvConfigFiles::builder()
            .include_default_config_file(true)
            .include_default_credentials_file(true)
            .with_contents(EnvConfigFileKind::Config, file)
            .build()
    }

    async fn assume(&self, role: &str, base: &SdkConfig, region: Region) -> SharedCredentialsProvider {
        let mut sts = base.to_builder();
        if let Some(endpoint) = &self.config.sts_endpoint {
            sts = sts.endpoint_url(endpoint);
            // The option goes before AWS_ENDPOINT_URL.
            sts.insert_origin("endpoint_url", Origin::shared_config());
        }
        let mut provider =
            AssumeRoleProvider::builder(role).region(region).session_name("kubehose").configure(&sts.build());
        if let Some(id) = &self.config.external_id {
            provider = provider.external_id(id);
        }
        SharedCredentialsProvider::new(provider.build().await)
    }
}

/// Reads which records were taken. The reply's order is the request's.
/// <https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html>
fn read_answer(output: &PutRecordBatchOutput, records: usize) -> Result<Answer, Fault> {
    if output.failed_put_count() == 0 {
        return Ok(Answer::default());
    }
    let entries = output.request_responses();
    if entries.len() != records {
        return Err(Fault {
            class: Class::Service,
            unclear: true,
            text: format!("the reply speaks of {} records, the request had {records}", entries.len()),
        });
    }
    let refused = entries
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| entry.error_code().map(|code| Refused { index, code: code.to_owned() }));
    Ok(Answer { refused: refused.collect() })
}

fn classify(error: &SdkError<PutRecordBatchError, HttpResponse>) -> Fault {
    let text = told(error);
    let fault = |class, unclear| Fault { class, unclear, text: text.clone() };
    if let Some(proxy) = caused_by::<ProxyFault>(error) {
        return Fault { class: Class::Setup(Setup::Proxy), unclear: false, text: told(proxy) };
    }
    if let Some(credentials) = caused_by::<CredentialsError>(error) {
        return Fault { class: Class::Setup(Setup::Credentials), unclear: false, text: told(credentials) };
    }
    match error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            let meta = service.err().meta();
            let (code, message) = (meta.code().unwrap_or_default(), meta.message().unwrap_or_default());
            let text = match (code, message) {
                ("", "") => format!("HTTP status {status}"),
                ("", message) => format!("HTTP status {status}: {message}"),
                (code, message) => format!("{code}: {message}"),
            };
            Fault { class: classify_code(code, message, status), unclear: false, text }
        }
        // Nothing was sent.
        SdkError::ConstructionFailure(_) => fault(Class::Setup(Setup::Other), false),
        SdkError::TimeoutError(_) => fault(Class::Service, true),
        SdkError::ResponseError(response) if !response.raw().status().is_success() => {
            let status = response.raw().status().as_u16();
            let body = response.raw().body().bytes().unwrap_or_default();
            let (code, message) = read_xml(&String::from_utf8_lossy(body));
            let text = match code.as_str() {
                "" => {
                    format!("HTTP status {status}, and not in Firehose's words: a proxy or gateway may have answered")
                }
                code => format!("{code}: {message}"),
            };
            Fault { class: classify_code(&code, &message, status), unclear: false, text }
        }
        SdkError::ResponseError(_) => fault(Class::Service, true),
        SdkError::DispatchFailure(dispatch) => {
            let lower = text.to_ascii_lowercase();
            if lower.contains("certificate") || lower.contains("unknownissuer") {
                return fault(Class::Setup(Setup::Untrusted), false);
            }
            match never_connected(error) || dispatch.is_user() {
                true => fault(Class::Setup(Setup::Unreachable), false),
                false => fault(Class::Service, true),
            }
        }
        _ => fault(Class::Service, true),
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
        // Firehose says this also of streams that do not take records directly at all.
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

/// Code and message of an error in XML, as AWS's other services and what stands before them write it.
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
    text.chars().take(800).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
