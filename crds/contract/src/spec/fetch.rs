use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

use super::{ClaimTemplate, Dataset, SpecProblem, VolumeClaim};

/// A folder of an S3-compatible object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "!has(self.endpoint) || !self.endpoint.startsWith('http://') || self.allowHttp",
    "message": "{path}.endpoint begins with http://, and data would be sent in the clear: write https:// or set allowHttp to true",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectStorage {
    /// Bucket and folder, for example `s3://datasets/digits`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = json!([{
        "rule": "self.matches('^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/?#]+)*/?$') && !(self + '/').matches('/[.][.]?/')",
        "messageExpression": "\"{path} is '\" + self + \"': write s3://bucket or s3://bucket/folder\"",
    }]))))]
    pub url: String,
    /// Address of the store where it is not AWS, for example `https://minio.storage:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = json!([{
        "rule": "self.matches('^https?://[^/@?#]+(/[^@?#]*)?$')",
        "message": "{path} is no address: write https://host or http://host:port, without user, password and query",
    }]))))]
    pub endpoint: Option<String>,
    /// AWS region of the bucket. Default: us-east-1, which most other stores take, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 64)))]
    pub region: Option<String>,
    /// Whether `endpoint` may begin with http://.
    #[serde(default)]
    pub allow_http: bool,
    /// Name of a Secret with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where it is needed,
    /// `AWS_SESSION_TOKEN`. Only the container that reads or writes the store gets them. Without it, the identity of the namespace's
    /// default service account is used, as the cloud projects it into pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub credentials_secret: Option<String>,
    /// Certificates (PEM) of the authorities that vouch for the store, where no public one does. They are trusted
    /// besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16384), extend("x-kubernetes-validations" = json!([{
        "rule": "self.contains('-----BEGIN CERTIFICATE-----')",
        "message": "{path} has no certificate: write what begins with -----BEGIN CERTIFICATE-----",
    }]))))]
    pub ca_bundle: Option<String>,
}

/// A zip or tar file at an HTTP address. It is fetched as a whole and unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([
    {
        "rule": "!self.url.startsWith('http://') || has(self.sha256)",
        "message": "{path}.url begins with http://, and what arrives could be anything: write https:// or add sha256",
    },
    {
        "rule": "!self.url.startsWith('http://') || !has(self.credentialsSecret)",
        "message": "{path}.credentialsSecret would be sent in the clear to an http:// address: write https:// or remove it",
    },
]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Archive {
    /// Address of a .zip, .tar, .tar.gz, .tgz or .tar.zst file, without user, password and query.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = json!([{
        // What is written there may be a secret, so it is not repeated.
        "rule": "self.matches('^https?://[^/@?#]+/[^?#]*[.](zip|tar|tar[.]gz|tgz|tar[.]zst)$')",
        "message": "{path} is not the address of an archive: write https://host/name ending in .zip, .tar, .tar.gz, .tgz or .tar.zst, without user, password and query",
    }]))))]
    pub url: String,
    /// SHA-256 of the file, as `sha256sum` prints it. Another file is not unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 128), extend("x-kubernetes-validations" = json!([{
        "rule": "self.matches('^[0-9a-fA-F]{64}$')",
        "messageExpression": "\"{path} is '\" + self + \"': write the 64 hexadecimal digits that sha256sum prints\"",
    }]))))]
    pub sha256: Option<String>,
    /// Name of a Secret whose key `authorization` holds the value of the header Authorization, for example
    /// `Bearer …`. Only the pod that fetches gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub credentials_secret: Option<String>,
    /// Certificates (PEM) of the authorities that vouch for the server, where no public one does. They are trusted
    /// besides the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16384), extend("x-kubernetes-validations" = json!([{
        "rule": "self.contains('-----BEGIN CERTIFICATE-----')",
        "message": "{path} has no certificate: write what begins with -----BEGIN CERTIFICATE-----",
    }]))))]
    pub ca_bundle: Option<String>,
}

/// The volume that a data set is fetched to: name exactly one claim. The workers mount it read-only. A later job
/// with the same source and claim finds the files there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "has(self.persistentVolumeClaim) != has(self.volumeClaimTemplate)",
    "messageExpression": "'{path} has ' + (has(self.volumeClaimTemplate) ? 'two places, persistentVolumeClaim and volumeClaimTemplate: remove one' : 'no place: add persistentVolumeClaim or volumeClaimTemplate')",
    "message": "{path} has no place or two places: name either persistentVolumeClaim or volumeClaimTemplate",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FetchTo {
    /// A claim that exists. Its folder must be empty at first, or hold what was fetched from the same source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaim>,
    /// Makes a claim `<job>-dataset` of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<ClaimTemplate>,
}

/// The formats of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// Zip.
    Zip,
    /// Tar.
    Tar,
    /// Tar in gzip.
    TarGz,
    /// Tar in Zstandard.
    TarZst,
}

impl ArchiveFormat {
    /// The format that an address' ending tells; the CEL rule beside the field knows the same.
    pub fn of(url: &str) -> Option<Self> {
        let formats = [
            (".zip", Self::Zip),
            (".tar", Self::Tar),
            (".tar.gz", Self::TarGz),
            (".tgz", Self::TarGz),
            (".tar.zst", Self::TarZst),
        ];
        let found = formats
            .into_iter()
            .find(|(ending, _)| url.ends_with(ending));
        found.map(|(_, format)| format)
    }
}

/// What is wrong with a data set that is to be fetched.
pub(super) fn problems(dataset: &Dataset) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    match (dataset.fetched(), &dataset.fetch_to) {
        (Some(source), None) => problems.push(format!(
            "dataset.{source} needs a volume for what is fetched: add dataset.fetchTo"
        )),
        (None, Some(_)) => problems
            .push("dataset.fetchTo is for objectStorage and archive only: remove it".to_owned()),
        _ => {}
    }
    problems.extend(
        dataset
            .object_storage
            .iter()
            .flat_map(|storage| storage_problems("dataset", storage)),
    );
    problems.extend(dataset.archive.iter().flat_map(archive));
    let mut problems: Vec<_> = problems.into_iter().map(SpecProblem).collect();
    if let Some(to) = &dataset.fetch_to {
        let (claim, template) = (&to.persistent_volume_claim, &to.volume_claim_template);
        match (claim, template) {
            (None, None) => problems.push(SpecProblem(
                "dataset.fetchTo has no place: add persistentVolumeClaim or volumeClaimTemplate"
                    .to_owned(),
            )),
            (Some(_), Some(_)) => problems.push(SpecProblem(
                "dataset.fetchTo has two places, persistentVolumeClaim and volumeClaimTemplate: remove one"
                    .to_owned(),
            )),
            _ => {}
        }
        let field = "dataset.fetchTo.persistentVolumeClaim";
        problems.extend(claim.iter().filter_map(|claim| claim.problem(field)));
        let field = "dataset.fetchTo.volumeClaimTemplate";
        problems.extend(
            template
                .iter()
                .filter_map(|template| template.problem(field)),
        );
    }
    problems
}

/// What is wrong with a folder of an object store, which is a field of `owner`.
pub(super) fn storage_problems(owner: &str, storage: &ObjectStorage) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_bucket_and_folder(&storage.url) {
        problems.push(format!(
            "{owner}.objectStorage.url is '{}': write s3://bucket or s3://bucket/folder",
            storage.url
        ));
    }
    if let Some(endpoint) = &storage.endpoint {
        if !is_address(endpoint) {
            problems.push(format!(
                "{owner}.objectStorage.endpoint is no address: write https://host or http://host:port, without user, password and query"
            ));
        } else if endpoint.starts_with("http://") && !storage.allow_http {
            problems.push(format!(
                "{owner}.objectStorage.endpoint begins with http://, and data would be sent in the clear: write https:// or set allowHttp to true"
            ));
        }
    }
    let field = format!("{owner}.objectStorage.caBundle");
    problems.extend(bundle_problem(&field, storage.ca_bundle.as_deref()));
    problems
}

fn bundle_problem(field: &str, bundle: Option<&str>) -> Option<String> {
    let empty = !bundle?.contains("-----BEGIN CERTIFICATE-----");
    empty.then(|| {
        format!("{field} has no certificate: write what begins with -----BEGIN CERTIFICATE-----")
    })
}

fn archive(archive: &Archive) -> Vec<String> {
    let mut problems = Vec::new();
    let bundle = archive.ca_bundle.as_deref();
    problems.extend(bundle_problem("dataset.archive.caBundle", bundle));
    let path = host_and_path(&archive.url).and_then(|(_, path)| path);
    if path.and_then(ArchiveFormat::of).is_none() {
        problems.push(
            "dataset.archive.url is not the address of an archive: write https://host/name ending in .zip, .tar, .tar.gz, .tgz or .tar.zst, without user, password and query"
                .to_owned(),
        );
    }
    if let Some(sha256) = &archive.sha256
        && !(sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        problems.push(format!(
            "dataset.archive.sha256 is '{sha256}': write the 64 hexadecimal digits that sha256sum prints"
        ));
    }
    if archive.url.starts_with("http://") {
        if archive.sha256.is_none() {
            problems.push(
                "dataset.archive.url begins with http://, and what arrives could be anything: write https:// or add sha256"
                    .to_owned(),
            );
        }
        if archive.credentials_secret.is_some() {
            problems.push(
                "dataset.archive.credentialsSecret would be sent in the clear to an http:// address: write https:// or remove it"
                    .to_owned(),
            );
        }
    }
    problems
}

fn is_bucket_and_folder(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("s3://") else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let mut parts = rest.split('/');
    let bucket = parts.next().unwrap_or_default();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [bucket.as_bytes().first(), bucket.as_bytes().last()];
    (3..=63).contains(&bucket.len())
        && bucket
            .bytes()
            .all(|byte| plain(&byte) || b".-".contains(&byte))
        && ends.into_iter().all(|end| end.is_some_and(plain))
        && parts.all(|part| {
            !part.is_empty() && !part.contains(['?', '#']) && ![".", ".."].contains(&part)
        })
}

/// Host and path of an HTTP address without user, password and query.
fn host_and_path(url: &str) -> Option<(&str, Option<&str>)> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    let plain = !host.is_empty() && !host.contains('@') && !rest.contains(['?', '#']);
    plain.then_some((host, path))
}

fn is_address(url: &str) -> bool {
    host_and_path(url).is_some_and(|(_, path)| path.is_none_or(|path| !path.contains('@')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_a_name_and_its_folders_too() {
        for good in [
            "s3://abc",
            "s3://a.b-c/",
            "s3://data/digits/v 1/",
            "s3://data/a/b",
        ] {
            assert!(is_bucket_and_folder(good), "{good}");
        }
        for bad in [
            "",
            "s3://",
            "s3://ab",
            "s3://-abc",
            "s3://abc-",
            "s3://ABC",
            "https://abc",
            "s3://abc//d",
            "s3://abc/..",
            "s3://abc/./d",
            "s3://abc/d?x",
            "s3://user:pw@abc",
        ] {
            assert!(!is_bucket_and_folder(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_hold_no_credentials() {
        for good in ["https://host", "http://host:9000", "https://host/base/"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "host",
            "ftp://host",
            "https://",
            "https://u:p@host",
            "https://host?x=1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn the_ending_tells_the_format() {
        assert_eq!(
            Some(ArchiveFormat::TarGz),
            ArchiveFormat::of("https://h/a.tar.gz")
        );
        assert_eq!(
            Some(ArchiveFormat::Tar),
            ArchiveFormat::of("https://h/a.tar")
        );
        for bad in ["https://h/a.rar", "https://h/a.gz", "https://h/zip"] {
            assert_eq!(None, ArchiveFormat::of(bad), "{bad}");
        }
    }
}
