//! A server that sends files, or what another server sends, no faster than it is told, and counts what it sent.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A moment.
#[expect(
    clippy::disallowed_methods,
    reason = "other processes are waited for with a ceiling"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A server on this machine that sends slowly.
pub struct Files {
    port: u16,
    /// Bytes it has sent.
    pub sent: Arc<AtomicU64>,
    /// Bytes a second; 0 is as fast as it can.
    speed: Arc<AtomicU64>,
    /// How many of the next pieces of bodies a relay damages, each in another way.
    pub damages: Arc<AtomicU64>,
    /// After how many bytes a connection breaks; 0 is never.
    pub breaks: Arc<AtomicU64>,
    /// How many of the next requests for parts of files find no server behind a gateway.
    pub away: Arc<AtomicU64>,
}

impl Files {
    /// Sends these files, and those below /guarded only to who sends an Authorization. Those below /dated have no
    /// `ETag`.
    pub fn serve<const N: usize>(files: [(&str, Vec<u8>); N], speed: u64) -> Self {
        let files: HashMap<String, Vec<u8>> = files
            .into_iter()
            .map(|(name, bytes)| (name.to_owned(), bytes))
            .collect();
        Self::start(speed, move |stream, sink| answer(stream, sink, &files))
    }

    /// Sends what the server at this address sends.
    pub fn relay(to: &str, speed: u64) -> Self {
        let to = to.trim_start_matches("http://").to_owned();
        Self::start(speed, move |mut stream, sink| {
            let Ok(mut server) = TcpStream::connect(&to) else {
                return;
            };
            let mut request = stream.try_clone().expect("a socket");
            let mut onward = server.try_clone().expect("a socket");
            std::thread::spawn(move || std::io::copy(&mut request, &mut onward));
            let mut buffer = vec![0; 64 << 10];
            while let Ok(n @ 1..) = server.read(&mut buffer) {
                let damages = sink.damages.load(Ordering::SeqCst);
                // Not the head of an answer, nor a listing.
                if damages > 0 && n > 16 << 10 && !buffer.starts_with(b"HTTP") {
                    buffer[n / 2] ^= 1 + (damages % 255) as u8;
                    sink.damages.store(damages - 1, Ordering::SeqCst);
                }
                if !sink.send(&mut stream, &buffer[..n]) {
                    break;
                }
            }
            let _ = stream.shutdown(std::net::Shutdown::Both);
            let _ = server.shutdown(std::net::Shutdown::Both);
        })
    }

    fn start(speed: u64, each: impl Fn(TcpStream, &Sink) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (sent, speed) = (Arc::default(), Arc::new(AtomicU64::new(speed)));
        let [damages, breaks, away] = std::array::from_fn(|_| Arc::new(AtomicU64::new(0)));
        let sink = Sink {
            damages: Arc::clone(&damages),
            breaks: Arc::clone(&breaks),
            away: Arc::clone(&away),
            sent: Arc::clone(&sent),
            speed: Arc::clone(&speed),
            connection: Cell::new(0),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (each, sink) = (each.clone(), sink.clone());
                std::thread::spawn(move || each(stream, &sink));
            }
        });
        Self {
            port,
            sent,
            speed,
            damages,
            breaks,
            away,
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on as fast as it can.
    pub fn unlimited(&self) {
        self.speed.store(0, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Sink {
    damages: Arc<AtomicU64>,
    breaks: Arc<AtomicU64>,
    away: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    speed: Arc<AtomicU64>,
    /// Bytes of this connection.
    connection: Cell<u64>,
}

impl Sink {
    /// Sends bytes at the speed; whether somebody takes them.
    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(16 << 10) {
            if stream.write_all(piece).is_err() {
                return false;
            }
            self.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            self.connection.update(|sent| sent + piece.len() as u64);
            let breaks = self.breaks.load(Ordering::SeqCst);
            if breaks > 0 && self.connection.get() >= breaks {
                return false;
            }
            let begun = Instant::now();
            loop {
                let speed = self.speed.load(Ordering::SeqCst);
                let due = piece.len() as u64 * 1_000_000 / speed.max(1);
                if speed == 0 || begun.elapsed() >= Duration::from_micros(due) {
                    break;
                }
                pause();
            }
        }
        true
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream, sink: &Sink, files: &HashMap<String, Vec<u8>>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let header = |name: &str| {
        let mut lines = request.lines();
        lines.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    };
    let mut say = |status: &str, more: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
            body.len()
        );
        if stream.write_all(head.as_bytes()).is_ok() {
            sink.send(&mut stream, body);
        }
    };
    if path.starts_with("/guarded") && header("authorization").is_none() {
        return say("401 Unauthorized", "", b"");
    }
    let Some(file) = files.get(path) else {
        return say("404 Not Found", "", b"no such file");
    };
    let from = header("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    if from.is_some() {
        let away = sink.away.load(Ordering::SeqCst);
        if away > 0 {
            sink.away.store(away - 1, Ordering::SeqCst);
            return say("503 Service Unavailable", "", b"");
        }
    }
    let version = if path.starts_with("/dated") {
        "Last-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n"
    } else {
        "ETag: \"1\"\r\n"
    };
    match from {
        Some(from) => say(
            "206 Partial Content",
            &format!(
                "{version}Content-Range: bytes {from}-{}/{}\r\n",
                file.len() - 1,
                file.len()
            ),
            &file[from..],
        ),
        None => say(
            "200 OK",
            &format!("{version}Accept-Ranges: bytes\r\n"),
            file,
        ),
    }
}
