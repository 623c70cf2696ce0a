//! A server that speaks as much of S3 as checkpoints need, and refuses now and then as a busy one does.

#![allow(dead_code, reason = "two tests use it, each in its own way")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What the server knows its one user by.
pub(crate) const KEY: &str = "thekey";

#[derive(Default)]
struct Inside {
    objects: BTreeMap<String, Vec<u8>>,
    /// Parts of uploads, by upload and number.
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// Requests that are refused with "slow down" before others are answered.
    refuse: u64,
}

/// The server; it ends with the test's process.
#[derive(Clone)]
pub(crate) struct S3Server {
    pub(crate) endpoint: String,
    inside: Arc<Mutex<Inside>>,
    requests: Arc<AtomicU64>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { endpoint, inside: Arc::default(), requests: Arc::default() };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.answer(&stream));
            }
        });
        server
    }

    /// Variables that point a client here.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "here".to_owned()),
        ]
    }

    /// Names of objects, `bucket/name`.
    pub(crate) fn names(&self) -> Vec<String> {
        self.inside.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(crate) fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.inside.lock().unwrap().objects.get(name).cloned()
    }

    /// Changes a byte of an object.
    pub(crate) fn damage(&self, name: &str) {
        let mut inside = self.inside.lock().unwrap();
        let object = inside.objects.get_mut(name).unwrap();
        let middle = object.len() / 2;
        object[middle] ^= 1;
    }

    /// Refuses the next requests.
    pub(crate) fn refuse(&self, requests: u64) {
        self.inside.lock().unwrap().refuse = requests;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn answer(&self, mut stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut known) = (0, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap(),
                "authorization" => known = value.contains(&format!("AWS4-HMAC-SHA256 Credential={KEY}/")),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (status, answer) =
            if known { self.carry_out(method, path, query, body) } else { (403, error("AccessDenied")) };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\netag: \"e\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer)));
    }

    fn carry_out(&self, method: &str, path: &str, query: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let mut inside = self.inside.lock().unwrap();
        if inside.refuse > 0 {
            inside.refuse -= 1;
            return (503, error("SlowDown"));
        }
        let name = decoded(path.trim_start_matches('/'));
        let field = |key: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).map(decoded)
        };
        match (method, field("uploadId")) {
            ("PUT", Some(upload)) => {
                let number = field("partNumber").unwrap().parse().unwrap();
                inside.parts.insert((upload, number), body);
                (200, Vec::new())
            }
            ("POST", Some(upload)) => {
                let parts: Vec<_> = inside.parts.keys().filter(|(of, _)| *of == upload).cloned().collect();
                let whole = parts.iter().flat_map(|part| inside.parts.remove(part).unwrap()).collect();
                inside.objects.insert(name, whole);
                (
                    200,
                    b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>".to_vec(),
                )
            }
            ("POST", None) if query.starts_with("uploads") => {
                let id = format!("upload-{}", self.requests());
                let answer = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                (200, answer.into_bytes())
            }
            ("POST", None) if query.starts_with("delete") => {
                let text = String::from_utf8(body).unwrap();
                let mut answer = "<DeleteResult>".to_owned();
                for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                    inside.objects.remove(&format!("{}/{key}", name.trim_end_matches('/')));
                    let _ = write!(answer, "<Deleted><Key>{key}</Key></Deleted>");
                }
                (200, format!("{answer}</DeleteResult>").into_bytes())
            }
            ("PUT", None) => {
                inside.objects.insert(name, body);
                (200, Vec::new())
            }
            ("GET", _) if query.contains("list-type=2") => {
                let bucket = name.trim_end_matches('/');
                let prefix = format!("{bucket}/{}", field("prefix").unwrap_or_default());
                let mut answer = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
                for (key, object) in inside.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                    let key = &key[bucket.len() + 1..];
                    let _ = write!(
                        answer,
                        "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag><Size>{}</Size></Contents>",
                        object.len()
                    );
                }
                answer.push_str("</ListBucketResult>");
                (200, answer.into_bytes())
            }
            ("GET", _) => match inside.objects.get(&name) {
                Some(object) => (200, object.clone()),
                None => (404, error("NoSuchKey")),
            },
            ("DELETE", _) => {
                inside.objects.remove(&name);
                (204, Vec::new())
            }
            _ => (400, error("NotImplemented")),
        }
    }
}

fn error(code: &str) -> Vec<u8> {
    format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>").into_bytes()
}

fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}
