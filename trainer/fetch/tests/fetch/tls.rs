//! Servers for which an authority of their owner's vouches.

use std::net::TcpListener;
use std::sync::Arc;

use contract::exit::FailureReason;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tests::Moto;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::servers::Files;
use crate::{Job, SECRET, bytes};

/// Speaks TLS before a server that does not; returns its address, and the certificate of its authority.
fn front(server: &str) -> (String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let own = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &authority).expect("signed");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![own.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = format!("https://{}", listener.local_addr().expect("bound"));
    let server = server.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                tokio::spawn(async move {
                    // Of one that does not trust us nothing comes.
                    if let Ok(mut client) = acceptor.accept(client).await
                        && let Ok(mut server) = TcpStream::connect(server).await
                    {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
    });
    (address, authority.pem())
}

fn job(source: &str, mut fields: Value, bundle: Option<&str>) -> Job {
    if let Some(bundle) = bundle {
        fields["caBundle"] = bundle.into();
    }
    let to = json!({"persistentVolumeClaim": {"claimName": "cache"}});
    Job::new(&json!({source: fields, "fetchTo": to}))
        .env("AWS_ACCESS_KEY_ID", "testing")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
}

#[test]
fn a_store_is_trusted_for_the_authority_that_the_job_names() {
    let moto = Moto::start("127.0.0.1");
    moto.bucket("data");
    moto.put("data", "digits/data.yaml", b"names: [a]");
    let (endpoint, authority) = front(&moto.url());
    let store = json!({"url": "s3://data/digits", "endpoint": endpoint});
    // One of somebody else's before it.
    let (_, other) = front(&moto.url());
    let both = format!("{other}{authority}");
    let fetched = job("objectStorage", store.clone(), Some(&both));
    fetched.succeeds();
    assert!(fetched.folder().join("data.yaml").exists());
    job("objectStorage", store.clone(), Some(&other)).fails(
        FailureReason::FetchFailed,
        "into dataset.objectStorage.caBundle",
    );
    let torn = authority.replace("-----END", "");
    job("objectStorage", store, Some(&torn)).fails(
        FailureReason::InvalidConfig,
        "dataset.objectStorage.caBundle has a certificate that cannot be read",
    );
}

#[test]
fn so_is_the_server_of_an_archive() {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1000);
    header.set_mode(0o644);
    let content = bytes(1, 1000);
    let added = archive.append_data(&mut header, "data.yaml", &content[..]);
    added.expect("added");
    let archive = archive.into_inner().expect("a tar file");
    let files = Files::serve([("/a.tar", archive)], 0);
    let (address, authority) = front(&files.url());
    let source = json!({"url": format!("{address}/a.tar")});
    job("archive", source.clone(), Some(&authority)).succeeds();
    job("archive", source, None).fails(FailureReason::FetchFailed, "into dataset.archive.caBundle");
}
