//! moto's S3 server, a program of Python that `scripts/moto.sh` puts into the cache once.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::root;
use crate::wait::until;

/// The address at which pods of the local cluster reach this machine (`HOST_IP` in tests/cluster/lib.sh).
pub const HOST_OF_PODS: &str = "10.213.0.1";

/// moto's server, until this goes.
pub struct Moto {
    child: Child,
    address: String,
}

impl Moto {
    /// Starts it at an address of this machine and waits until it answers.
    pub fn start(host: &str) -> Self {
        Self::with(host, |port| {
            ["-m", "moto.server", "--host", host, "--port", port]
                .map(ToOwned::to_owned)
                .to_vec()
        })
    }

    /// Starts only what exchanges tokens of service accounts for keys.
    pub fn of_identities(host: &str) -> Self {
        let program = root()
            .join("tests/src/moto_identity.py")
            .display()
            .to_string();
        Self::with(host, |port| vec![program, host.to_owned(), port.to_owned()])
    }

    fn with(host: &str, arguments: impl FnOnce(&str) -> Vec<String>) -> Self {
        let found = Command::new(root().join("scripts/moto.sh"))
            .output()
            .expect("the script runs");
        let python = String::from_utf8(found.stdout).expect("a path");
        assert!(
            found.status.success(),
            "{}",
            String::from_utf8_lossy(&found.stderr)
        );
        let port = free_port(host);
        let child = Command::new(python.trim())
            .args(arguments(&port.to_string()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let moto = Self {
            child,
            address: format!("{host}:{port}"),
        };
        until("moto to answer", Duration::from_secs(60), || {
            TcpStream::connect(&moto.address)
                .map(drop)
                .map_err(|error| error.to_string())
        });
        moto
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        self.send("PUT", &format!("/{name}"), b"");
    }

    /// Makes an object. moto asks for no signature.
    pub fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        self.send("PUT", &format!("/{bucket}/{}", escaped(key)), content);
    }

    /// The content of an object.
    pub fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        self.send("GET", &format!("/{bucket}/{}", escaped(key)), b"")
    }

    /// The keys of all objects; a thousand at most.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let list = self.send("GET", &format!("/{bucket}?list-type=2"), b"");
        let list = String::from_utf8(list).expect("XML");
        let keys = list.split("<Key>").skip(1);
        let keys = keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()));
        keys.collect()
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).expect("moto is there");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=testing/20270101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let content = answer.split_off(end.expect("an end of the head") + 4);
        let head = String::from_utf8_lossy(&answer);
        assert!(
            head.starts_with("HTTP/1.1 200"),
            "{method} {path}: {head}{}",
            String::from_utf8_lossy(&content)
        );
        content
    }
}

fn escaped(key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte);
    let bytes = key.bytes().map(|byte| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    bytes.collect()
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port(host: &str) -> u16 {
    let listener = TcpListener::bind((host, 0)).expect("an address of this machine");
    listener.local_addr().expect("bound").port()
}
