//! Credentials and endpoint, as the SDK finds them, and the signature of a call.
//!
//! The SDK's client is not used: making a call its way costs more than all the rest of a small call. Its parts are: the
//! chain of credentials, the rules of endpoints, the signer.

use crate::firehose::FirehoseConfig;
use crate::firehose::credentials::Found;
use crate::firehose::http::{BoxError, Http1};
use crate::service::{self, ResolveEndpoint};
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::origin::Origin;
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http::Uri;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http_body_util::Full;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long connecting may take; the SDK's own default.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);

const AGENT: &str = concat!("kubehose/", env!("CARGO_PKG_VERSION"));

/// Where calls go, and where the credentials for them come from.
pub struct Access {
    region: String,
    url: String,
    uri: Uri,
    provider: SharedCredentialsProvider,
}

/// Turns a body into a signed call.
#[derive(Debug)]
pub struct Signer {
    region: String,
    url: String,
    uri: Uri,
    identity: Identity,
}

impl Access {
    /// Reads the environment and the shared configuration files, and resolves the endpoint. Does not look up credentials
    /// yet.
    ///
    /// # Errors
    /// When the SDK's rules have no endpoint for the configuration, such as FIPS in a region without it, or the endpoint is not a URL.
    pub async fn new(config: &FirehoseConfig, http: &Http1) -> Result<Access, BoxError> {
        let region = Region::new(config.region.clone());
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .http_client(http.clone())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_timeout(config.request_timeout)
                    .build(),
            );
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(endpoint) = &config.sts_endpoint {
            loader = loader.profile_files(sts_in_profile(config.profile.as_deref(), endpoint));
        }
        let base = loader.load().await;
        let url = match &config.endpoint {
            Some(url) => url.clone(),
            None => endpoint(&base).await?,
        };
        let provider = match &config.role_arn {
            Some(role) => assume(config, role, &base, region).await,
            None => base.credentials_provider().ok_or("no source of credentials")?,
        };
        Ok(Access { region: config.region.clone(), uri: url.parse()?, url, provider })
    }

    /// Looks up credentials.
    ///
    /// # Errors
    /// Those of the SDK's providers.
    pub async fn look(&self) -> Result<Found<Signer>, CredentialsError> {
        let credentials: Credentials = self.provider.provide_credentials().await?;
        let valid_for = credentials.expiry().map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        let Access { region, url, uri, .. } = self;
        let (region, url, uri) = (region.clone(), url.clone(), uri.clone());
        Ok(Found { access: Arc::new(Signer { region, url, uri, identity: credentials.into() }), valid_for })
    }
}

impl Signer {
    /// A PutRecordBatch call with this body, signed as at this time.
    ///
    /// # Errors
    /// When the credentials cannot sign.
    pub fn request(&self, body: Bytes, time: SystemTime) -> Result<http::Request<Full<Bytes>>, BoxError> {
        let params = SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(service::NAME)
            .time(time)
            .settings(SigningSettings::default())
            .build()?;
        let headers = [("content-type", service::CONTENT_TYPE), ("x-amz-target", service::TARGET)];
        let body_hash = SignableBody::Precomputed(hex::encode(ring::digest::digest(&ring::digest::SHA256, &body)));
        let request = SignableRequest::new("POST", &*self.url, headers.into_iter(), body_hash)?;
        let (instructions, _) = sign(request, &params.into())?.into_parts();
        let mut request = http::Request::post(self.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static(service::CONTENT_TYPE))
            .header("x-amz-target", HeaderValue::from_static(service::TARGET))
            .header(USER_AGENT, HeaderValue::from_static(AGENT))
            .body(Full::new(body))?;
        instructions.apply_to_request_http1x(&mut request);
        debug_assert!(request.headers().contains_key(AUTHORIZATION));
        Ok(request)
    }
}

/// The URL of the service, by the SDK's rules: AWS_ENDPOINT_URL_FIREHOSE, AWS_ENDPOINT_URL, the profile's settings, FIPS and
/// dual stack, the region's partition.
async fn endpoint(base: &SdkConfig) -> Result<String, BoxError> {
    let key =
        ServiceConfigKey::builder().service_id(service::ID).env("AWS_ENDPOINT_URL").profile("endpoint_url").build()?;
    let of_service = base.service_config().and_then(|settings| settings.load_config(key));
    let params = service::EndpointParams::builder()
        .set_region(base.region().map(ToString::to_string))
        .set_use_fips(base.use_fips())
        .set_use_dual_stack(base.use_dual_stack())
        .set_endpoint(of_service.or_else(|| base.endpoint_url().map(str::to_owned)))
        .build()?;
    Ok(ResolveEndpoint::resolve_endpoint(&service::EndpointRules::new(), &params).await?.url().to_owned())
}

/// The shared configuration files, and one more that sets the endpoint of STS in the profile in use. Nothing else
/// reaches the SDK's web identity and profile providers, which make STS clients of their own.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>
fn sts_in_profile(profile: Option<&str>, endpoint: &str) -> EnvConfigFiles {
    let from_environment = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
    let name = profile.map(str::to_owned).or_else(from_environment).unwrap_or_else(|| "default".to_owned());
    let file = format!(
        "[profile {name}]\nservices = kubehose-sts\n[services kubehose-sts]\nsts =\n  endpoint_url = {endpoint}\n"
    );
    EnvConfigFiles::builder()
        .include_default_config_file(true)
        .include_default_credentials_file(true)
        .with_contents(EnvConfigFileKind::Config, file)
        .build()
}

async fn assume(config: &FirehoseConfig, role: &str, base: &SdkConfig, region: Region) -> SharedCredentialsProvider {
    let mut sts = base.to_builder();
    if let Some(endpoint) = &config.sts_endpoint {
        sts = sts.endpoint_url(endpoint);
        // The option takes precedence over AWS_ENDPOINT_URL.
        sts.insert_origin("endpoint_url", Origin::shared_config());
    }
    let mut provider =
        AssumeRoleProvider::builder(role).region(region).session_name("kubehose").configure(&sts.build());
    if let Some(id) = &config.external_id {
        provider = provider.external_id(id);
    }
    SharedCredentialsProvider::new(provider.build().await)
}
