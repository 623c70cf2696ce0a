//! Who asks.

use super::{
    BODY_BYTES_MAX, Door, EndpointKey, Lan, REQUESTS, Relays,
    door::{address_of, reach_of, settle},
    requests::{ANSWERED, read_parts, write_parts},
};
use crate::{BindError, InternetReach, PeerKey};
use iroh::{Endpoint, endpoint::Connection};
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncReadExt, runtime, time};

/// How long it may take to reach somebody.
const REACHING: Duration = Duration::from_secs(20);

/// How often a question is asked, and the pause in between.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// How long a question and its answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The other side was not reached, or went away.
    #[error("{key} can't be reached: {why}; check that it still runs, and that this machine has a network", key = key.short())]
    Unreachable {
        /// Who.
        key: PeerKey,
        /// Why.
        why: String,
    },
    /// It was reached, and says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks other processes. Made from a transport ([`crate::StreamTransport::requester`]), or on its own.
#[derive(Clone)]
pub struct Requester {
    endpoint: Endpoint,
    connections: Arc<Mutex<HashMap<PeerKey, Connection>>>,
    handle: runtime::Handle,
    patience: Duration,
    /// Where it runs, if on its own.
    _runtime: Option<Arc<runtime::Runtime>>,
}

impl Requester {
    /// One that asks as the owner of `key`, with threads of its own, and looks for others on its own network too.
    ///
    /// # Errors
    /// The system's: no sockets or threads.
    pub fn open(key: EndpointKey, relays: Relays) -> Result<Self, BindError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("skipstone-ask")
            .enable_all()
            .build()
            .map_err(BindError::Threads)?;
        let endpoint = runtime.block_on(async {
            let endpoint = Door { lan: Lan::Look, ..Door::new(key, relays) }.open().await?;
            settle(&endpoint).await;
            Ok::<_, BindError>(endpoint)
        })?;
        let handle = runtime.handle().clone();
        Ok(Self { _runtime: Some(Arc::new(runtime)), ..Self::of(endpoint, handle) })
    }

    /// One that waits for an answer no longer than this, in place of a minute.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(crate) fn of(endpoint: Endpoint, handle: runtime::Handle) -> Self {
        Self { endpoint, connections: Arc::default(), handle, patience: PATIENCE, _runtime: None }
    }

    /// Asks, and waits for the answer's head and body; a connection that has died meanwhile is made anew once. Not to be
    /// called from a transport's own threads.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn ask(
        &self,
        whom: &InternetReach,
        head: &[u8],
        body: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), RequestError> {
        self.handle.block_on(async {
            let unreachable = |why: String| RequestError::Unreachable { key: whom.key, why };
            let known = self.connections().get(&whom.key).cloned();
            if let Some(connection) = known
                && let Ok(Ok(answer)) = time::timeout(self.patience, exchange(&connection, head, body)).await
            {
                return answer;
            }
            let fresh = async {
                let address = address_of(whom).ok_or_else(|| unreachable("its key is no key".to_owned()))?;
                let connecting = time::timeout(REACHING, self.endpoint.connect(address, REQUESTS)).await;
                let connection = connecting
                    .map_err(|_| unreachable(format!("nothing comes back within {} s", REACHING.as_secs())))?
                    .map_err(|why| unreachable(format!("{why:#}")))?;
                self.connections().insert(whom.key, connection.clone());
                exchange(&connection, head, body).await.map_err(|why| unreachable(in_full(&why)))?
            };
            time::timeout(self.patience, fresh)
                .await
                .map_err(|_| unreachable("it does not answer".to_owned()))?
        })
    }

    /// As [`ask`](Self::ask), but tries again where a connection is lost on the way.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn ask_again(
        &self,
        whom: &InternetReach,
        head: &[u8],
        body: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>), RequestError> {
        let mut answer = self.ask(whom, head, body);
        for _ in 1..TRIES {
            if !matches!(answer, Err(RequestError::Unreachable { .. })) {
                break;
            }
            std::thread::sleep(PAUSE);
            answer = self.ask(whom, head, body);
        }
        answer
    }

    /// Forgets the connection to a process that may have died: the next question makes a new one, and does not wait for the
    /// old one's end first.
    pub fn forget(&self, whom: &InternetReach) {
        if let Some(connection) = self.connections().remove(&whom.key) {
            connection.close(0_u32.into(), b"made anew");
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<PeerKey, Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The relay through which this process can be found; none if none answers in time.
    pub fn home_relay(&self, patience: Duration) -> Option<String> {
        self.handle.block_on(async { time::timeout(patience, self.endpoint.online()).await.ok() })?;
        self.ways().iter().find_map(|way| way.strip_prefix("relay:").map(str::to_owned))
    }

    /// Where this process can be found, as far as it is known now.
    pub fn ways(&self) -> Vec<String> {
        reach_of(&self.endpoint.addr(), &Relays::None).ways
    }

    /// Tells iroh's side that nothing more is asked.
    pub fn close(&self) {
        self.handle.block_on(async {
            drop(time::timeout(Duration::from_millis(500), self.endpoint.close()).await);
        });
    }
}

/// An error with its causes.
fn in_full(why: &io::Error) -> String {
    let mut text = why.to_string();
    let mut cause = std::error::Error::source(why);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

type Answer = Result<(Vec<u8>, Vec<u8>), RequestError>;

async fn exchange(connection: &Connection, head: &[u8], body: &[u8]) -> io::Result<Answer> {
    let (mut send, mut receive) = connection.open_bi().await?;
    write_parts(&mut send, head, body).await?;
    let kind = receive.read_u8().await?;
    let (head, body) = read_parts(&mut receive, BODY_BYTES_MAX).await?;
    Ok(if kind == ANSWERED {
        Ok((head, body))
    } else {
        Err(RequestError::Refused(String::from_utf8_lossy(&head).into_owned()))
    })
}
