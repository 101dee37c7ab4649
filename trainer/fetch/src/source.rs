//! Where a data set comes from, as a store; and what its errors mean.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use contract::spec::{Archive, Dataset, ObjectStorage};
use object_store::aws::AmazonS3Builder;
use object_store::client::HttpError;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig,
};

use crate::error::FetchError;

/// The variable with the value of the header Authorization.
pub const AUTHORIZATION: &str = contract::env::FETCH_AUTHORIZATION;

/// What is fetched.
#[derive(Clone, Debug)]
pub struct Source {
    /// What reads it.
    pub store: Arc<dyn ObjectStore>,
    /// Where in the store it is: a prefix, or nothing where the store is the one file.
    pub path: Path,
    /// Its address for people, without credentials.
    pub url: String,
    /// Tells it from other sources.
    pub identity: String,
    /// Which kind it is.
    pub kind: Kind,
}

/// The kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All objects below a prefix.
    Objects,
    /// One archive.
    Archive,
    /// Where a run is kept.
    Output,
}

impl Kind {
    fn url_field(self) -> &'static str {
        match self {
            Self::Objects => "dataset.objectStorage.url",
            Self::Archive => "dataset.archive.url",
            Self::Output => "output.objectStorage.url",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Objects => "dataset.objectStorage",
            Self::Archive => "dataset.archive",
            Self::Output => "output.objectStorage",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Objects => {
                "see whether the credentials of dataset.objectStorage are right and may list and read there"
            }
            Self::Archive => {
                "see whether the Secret of dataset.archive.credentialsSecret has the right value under 'authorization'"
            }
            Self::Output => {
                "see whether the credentials of output.objectStorage are right and may list, read, write and delete there"
            }
        }
    }
}

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one request with its retries.
    pub retry: Duration,
    /// For the next bytes.
    pub read: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            retry: Duration::from_mins(1),
            read: Duration::from_secs(30),
        }
    }
}

impl Source {
    /// The source that the data set names; `get` looks up environment variables.
    pub fn of(
        dataset: &Dataset,
        patience: Patience,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, FetchError> {
        match (&dataset.object_storage, &dataset.archive) {
            (Some(storage), None) => objects(storage, Kind::Objects, patience),
            (None, Some(archive)) => file(archive, patience, get(AUTHORIZATION)),
            _ => Err(FetchError::NothingToFetch),
        }
    }

    /// The place of a run's folder.
    pub fn of_run(
        storage: &ObjectStorage,
        run: &str,
        patience: Patience,
    ) -> Result<Self, FetchError> {
        let base = objects(storage, Kind::Output, patience)?;
        Ok(Self {
            path: base.path.clone().join(run),
            url: format!("{}/{run}", base.url),
            ..base
        })
    }

    /// What an error of the store means, at this address.
    pub fn explain(&self, error: &object_store::Error, url: &str) -> FetchError {
        use object_store::Error as Store;
        let url = url.to_owned();
        let forbidden = |status| FetchError::Forbidden {
            url: url.clone(),
            status,
            remedy: self.kind.remedy(),
        };
        match error {
            Store::NotFound { .. } => FetchError::Missing {
                url,
                field: self.kind.url_field(),
            },
            Store::PermissionDenied { .. } => forbidden("403 Forbidden"),
            Store::Unauthenticated { .. } => forbidden("401 Unauthorized"),
            Store::Precondition { .. } | Store::NotModified { .. } => FetchError::Changed { url },
            Store::InvalidPath { .. } => FetchError::UnsafeName {
                url,
                name: "…".to_owned(),
                problem: "or one like it, that has empty parts, '.' or '..'",
            },
            // Listings know no other errors.
            other => match general(other, url.clone(), self.kind) {
                FetchError::Server { status: 404, .. } => FetchError::Missing {
                    url,
                    field: self.kind.url_field(),
                },
                FetchError::Server { status: 401, .. } => forbidden("401 Unauthorized"),
                FetchError::Server { status: 403, .. } => forbidden("403 Forbidden"),
                error => error,
            },
        }
    }
}

/// Whether an error means that a server does not send parts of files as it was asked to, and not that it is away.
pub fn sends_no_parts(error: &object_store::Error) -> bool {
    if matches!(error, object_store::Error::NotSupported { .. }) {
        return true;
    }
    let text = error.to_string();
    match status(&text) {
        // The file is shorter than what is asked for: it is another one.
        Some(status) => status == 416,
        None if is_of_connection(error) => false,
        // The client has only texts for answers that came and are no such part.
        None => [
            "non-partial response",
            "Content-Range",
            "CONTENT_RANGE",
            "Content-Length",
            "Requested ",
            "Wanted range",
        ]
        .iter()
        .any(|said| text.contains(said)),
    }
}

/// HTTP's number in the text of an error.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// An error and its causes.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source())
}

/// Whether an error is of a connection, and not of an answer.
fn is_of_connection(error: &object_store::Error) -> bool {
    causes(error).any(<dyn Error>::is::<HttpError>)
}

/// Looks through the causes of an error. None of their texts is passed on as it is: servers' answers repeat
/// names of keys, and addresses may have queries.
fn general(error: &object_store::Error, url: String, kind_of_source: Kind) -> FetchError {
    let text = error.to_string();
    // The addresses at which clouds hand credentials to machines and pods.
    if ["169.254.169.254", "169.254.170.2"]
        .iter()
        .any(|address| text.contains(address))
    {
        return FetchError::NoCredentials {
            url,
            field: kind_of_source.field(),
        };
    }
    match (status(&text), is_of_connection(error)) {
        (Some(status), _) => FetchError::Server { url, status },
        (None, true) => {
            let innermost = causes(error).last();
            let mut problem = innermost.map(ToString::to_string).unwrap_or_default();
            if ["UnknownIssuer", "BadSignature"]
                .iter()
                .any(|why| problem.contains(why))
            {
                let field = kind_of_source.field();
                let _ = write!(
                    problem,
                    ": write the certificate of the authority that vouches for it into {field}.caBundle"
                );
            }
            FetchError::Network { url, problem }
        }
        (None, false) if text.contains("Content-Length") => FetchError::Answer {
            url,
            problem: "it does not say how long the file is",
        },
        (None, false) if text.contains("redirect") => FetchError::Answer {
            url,
            problem: "it sends us elsewhere without saying where; see whether the region of objectStorage is right",
        },
        (None, false) => FetchError::Network {
            url,
            problem: "the answer could not be understood".to_owned(),
        },
    }
}

fn objects(storage: &ObjectStorage, kind: Kind, patience: Patience) -> Result<Source, FetchError> {
    let url = storage.url.trim_end_matches('/').to_owned();
    let failed = |problem: String| FetchError::Client {
        url: url.clone(),
        problem,
    };
    let rest = url.strip_prefix("s3://");
    let rest = rest.ok_or_else(|| failed("it does not begin with s3://".to_owned()))?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let path = Path::parse(prefix)
        .map_err(|_| failed("its folder has empty parts, '.' or '..'".to_owned()))?;
    let options = options(patience, &url, kind, storage.ca_bundle.as_deref())?;
    // Credentials and identities of the pod are in the environment.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(options.with_allow_http(storage.allow_http))
        .with_retry(retries(patience));
    if let Some(region) = &storage.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &storage.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let store = builder.build().map_err(|_| {
        failed(format!(
            "see whether {} names a bucket, and credentials are whole",
            kind.field()
        ))
    })?;
    let identity = match &storage.endpoint {
        Some(endpoint) => format!("{url} at {endpoint}"),
        None => url.clone(),
    };
    Ok(Source {
        store: Arc::new(store),
        path,
        url,
        identity,
        kind,
    })
}

fn file(
    archive: &Archive,
    patience: Patience,
    authorization: Option<String>,
) -> Result<Source, FetchError> {
    let url = archive.url.clone();
    let failed = |problem: &str| FetchError::Client {
        url: url.clone(),
        problem: problem.to_owned(),
    };
    let bundle = archive.ca_bundle.as_deref();
    let mut options = options(patience, &url, Kind::Archive, bundle)?.with_allow_http(true);
    if let Some(value) = authorization {
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| {
            failed("the Secret's value under 'authorization' is no value of an HTTP header")
        })?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value);
        options = options.with_default_headers(headers);
    }
    let store = HttpBuilder::new()
        .with_url(&url)
        .with_client_options(options)
        .with_retry(retries(patience))
        .build()
        .map_err(|_| failed("it is no address"))?;
    let identity = match &archive.sha256 {
        Some(sha256) => format!("{url} with SHA-256 {}", sha256.to_lowercase()),
        None => url.clone(),
    };
    Ok(Source {
        store: Arc::new(store),
        path: Path::default(),
        url,
        identity,
        kind: Kind::Archive,
    })
}

fn retries(patience: Patience) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 10,
        retry_timeout: patience.retry,
    }
}

/// How servers are asked: authorities of public names vouch for them, and those of `bundle`, in PEM.
fn options(
    patience: Patience,
    url: &str,
    kind: Kind,
    bundle: Option<&str>,
) -> Result<ClientOptions, FetchError> {
    // A second call finds the first one's, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(10))
        // A file may take hours, but its bytes must keep coming.
        .with_timeout_disabled()
        .with_read_timeout(patience.read);
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let root = Certificate::from_der(root).map_err(|_| FetchError::Client {
            url: "https".to_owned(),
            problem: "an authority's certificate cannot be read".to_owned(),
        })?;
        options = options.with_root_certificate(root);
    }
    let Some(pem) = bundle else {
        return Ok(options);
    };
    let own = Certificate::from_pem_bundle(pem.as_bytes()).ok();
    let own = own.filter(|own| !own.is_empty());
    let own = own.ok_or_else(|| FetchError::Client {
        url: url.to_owned(),
        problem: format!(
            "{}.caBundle has a certificate that cannot be read",
            kind.field()
        ),
    })?;
    Ok(own
        .into_iter()
        .fold(options, ClientOptions::with_root_certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_is_there_can_lack_parts() {
        let generic = |text: &str| object_store::Error::Generic {
            store: "S3",
            source: text.into(),
        };
        for text in [
            "Received non-partial response when range requested",
            "Content-Range header not present in partial response",
            "Requested 5..9, got 0..9",
            "Wanted range starting at 9, but object was only 5 bytes long",
            "Server returned non-2xx status code: 416 Range Not Satisfiable: ",
        ] {
            assert!(sends_no_parts(&generic(text)), "{text}");
        }
        for text in [
            "Server returned non-2xx status code: 503 Service Unavailable: Content-Range",
            "Server returned non-2xx status code: 500 Internal Server Error: ",
            "Received redirect without LOCATION",
        ] {
            assert!(!sends_no_parts(&generic(text)), "{text}");
        }
    }
}
