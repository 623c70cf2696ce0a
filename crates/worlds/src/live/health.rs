//! `--health`: whether a run or a machine's nodes are well, over plain HTTP, for service managers and containers.
//!
//! `GET /health` answers 200 or 503 and a small JSON object. Who asks gets nothing else: no paths, no losses, no keys.

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Connections that are answered at a time; more are closed.
const CONNECTIONS_MAX: usize = 16;
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// A request has so long to come and its answer to go.
const PATIENCE: Duration = Duration::from_secs(2);

/// The address of `--health` is none, or taken.
#[derive(Debug, Error)]
#[error(
    "--health {address}: {why}; write it as PORT (of this machine alone) or ADDRESS:PORT, of a port that is free"
)]
pub struct HealthError {
    /// What was given.
    pub address: String,
    /// What is wrong.
    pub why: io::Error,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Answer {
    /// What keeps it from being well; none: nothing.
    why: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    facts: Value,
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    connections: AtomicUsize,
    over: AtomicBool,
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// `PORT` is one of the loopback's.
fn parse(text: &str) -> Result<SocketAddr, io::Error> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "this is no address and port"))
}

impl Health {
    /// Listens.
    ///
    /// # Errors
    /// An address that is none, or taken.
    pub(crate) fn listen(address: &str) -> Result<Self, HealthError> {
        let refused = |why| HealthError { address: address.to_owned(), why };
        let listener = parse(address).and_then(TcpListener::bind).map_err(refused)?;
        let local = listener.local_addr().map_err(refused)?;
        let starting =
            Answer { why: Some("it starts".to_owned()), facts: Value::Object(serde_json::Map::new()) };
        let shared = Arc::new(Shared {
            answer: Mutex::new(starting),
            connections: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let own = shared.clone();
        let accepting = std::thread::Builder::new().name("health".to_owned());
        accepting.spawn(move || accept(&listener, &own)).map_err(refused)?;
        Ok(Self { shared, address: local })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is answered from now on: well, if there is nothing that keeps it from being so.
    pub(crate) fn set(&self, why: Option<String>, facts: Value) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = Answer { why, facts };
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts, which then ends and closes the port.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_millis(200)));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // Out of file descriptors, most likely.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let own = shared.clone();
        let answering = std::thread::Builder::new().name("health answer".to_owned()).spawn(move || {
            // Who does not listen is no concern of ours.
            drop(answer(stream, &own));
            own.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if answering.is_err() {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Reads one request and answers it.
fn answer(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let (status, body) = match read_head(&mut stream, until) {
        Ok(head) => reply(&head, shared),
        Err(Unread::Long) => ("431 Request Header Fields Too Large", String::new()),
        Err(Unread::Slow) => ("408 Request Timeout", String::new()),
        Err(Unread::Broken(why)) => return Err(why),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(text.as_bytes())
}

enum Unread {
    Long,
    Slow,
    Broken(io::Error),
}

/// The request as far as its empty line; its body, if it has one, is not looked at.
fn read_head(stream: &mut TcpStream, until: Instant) -> Result<Vec<u8>, Unread> {
    let mut head = Vec::new();
    let mut piece = [0; 512];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX {
            return Err(Unread::Long);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Unread::Slow);
        }
        stream.set_read_timeout(Some(left)).map_err(Unread::Broken)?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(Unread::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Unread::Slow);
            }
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(Unread::Broken(why)),
        }
    }
    Ok(head)
}

fn reply(head: &[u8], shared: &Shared) -> (&'static str, String) {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, path, version] = words.as_slice() else { return ("400 Bad Request", String::new()) };
    if !version.starts_with(b"HTTP/1.") {
        return ("400 Bad Request", String::new());
    }
    if *path != b"/health" {
        return ("404 Not Found", String::new());
    }
    if *method != b"GET" {
        return ("405 Method Not Allowed", String::new());
    }
    let answer = shared.answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let status = if answer.why.is_none() { "200 OK" } else { "503 Service Unavailable" };
    (status, serde_json::to_string(&answer).unwrap_or_default() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request).unwrap();
        let mut text = String::new();
        // What is closed with bytes unread ends in an error, after the answer.
        drop(stream.read_to_string(&mut text));
        text
    }

    const GOOD: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn it_is_well_or_says_why_not() {
        let health = Health::listen("0").unwrap();
        assert!(health.address().ip().is_loopback());
        let starting = ask(health.address(), GOOD);
        assert!(starting.starts_with("HTTP/1.1 503 ") && starting.contains("it starts"), "{starting}");
        health.set(None, json!({"iteration": 7}));
        let well = ask(health.address(), GOOD);
        assert!(well.starts_with("HTTP/1.1 200 OK\r\n"), "{well}");
        let body: Value = serde_json::from_str(well.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body, json!({"why": null, "iteration": 7}));
        let address = health.address();
        drop(health);
        let closed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            TcpListener::bind(address).is_ok()
        });
        assert!(closed, "the port is free again");
    }

    #[test]
    fn what_is_no_such_request_is_refused_and_who_is_slow_is_cut_off() {
        let health = Health::listen("127.0.0.1:0").unwrap();
        let address = health.address();
        for (request, status) in [
            (&b"POST /health HTTP/1.1\r\n\r\n"[..], "405"),
            (b"GET /etc/passwd HTTP/1.1\r\n\r\n", "404"),
            (b"GET /health SSH\r\n\r\n", "400"),
            (b"\r\n\r\n", "400"),
            (&vec![b'x'; 2 * REQUEST_BYTES_MAX], "431"),
        ] {
            let said = ask(address, request);
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        }
        // Those who say nothing hold at most so many places, for a short time.
        let silent: Vec<TcpStream> =
            (0..3 * CONNECTIONS_MAX).map(|_| TcpStream::connect(address).unwrap()).collect();
        let began = Instant::now();
        while !ask(address, GOOD).starts_with("HTTP/1.1 503 ") {
            assert!(began.elapsed() < 3 * PATIENCE, "the silent keep all places");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(health.shared.connections.load(Ordering::Relaxed) <= CONNECTIONS_MAX);
        drop(silent);
        for bad in ["", "x", "127.0.0.1", "1.2.3.4.5:6", "99999", &address.to_string()] {
            assert!(Health::listen(bad).unwrap_err().to_string().contains("--health"), "{bad}");
        }
    }
}
