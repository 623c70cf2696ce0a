//! Frames over TCP.

pub(crate) mod accept;
mod backoff;
mod delay;
mod dial;
pub(crate) mod duct;
mod faults;
#[cfg(test)]
mod hostile;
pub(crate) mod life;
pub(crate) mod link;
mod receive;
pub(crate) mod settle;
pub(crate) mod shared;
mod table;
mod transmit;
mod transmit_shaped;

use crate::{BindError, Frame, NetConfig, NetEvent, PeerId, Priority, Reach, SendError, Transport};
pub use faults::CutDirection;
use link::Close;
use shared::Shared;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, net::TcpSocket, runtime, task::AbortHandle};

/// A [`Transport`] over TCP, with its own runtime.
pub struct StreamTransport {
    shared: Arc<Shared>,
    acceptors: Vec<AbortHandle>,
    runtime: Mutex<Option<runtime::Runtime>>,
}

impl StreamTransport {
    /// Listens at `address` (`IP:PORT`; port 0 takes any free one). `sink` gets every event; it is called from
    /// the transport's threads and has to be quick: while it runs, nothing else moves, heartbeats included.
    pub fn bind(
        config: NetConfig,
        address: &str,
        sink: impl Fn(NetEvent) + Send + Sync + 'static,
    ) -> Result<Self, BindError> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("skipstone-net")
            .enable_all()
            .build()
            .map_err(BindError::Threads)?;
        let listener = {
            let _guard = runtime.enter();
            listen(address, config.socket_buffer)?
        };
        let refused = |source| BindError::Refused { address: address.to_owned(), source };
        let local = listener.local_addr().map_err(refused)?;
        let tcp = Some((config.machine, local.to_string()));
        let shared =
            Shared::new(config, Reach { tcp, internet: None }, Arc::new(sink), runtime.handle().clone());
        #[cfg(feature = "iroh")]
        let shared = match shared.config.door.clone() {
            None => shared,
            Some(door) => {
                let endpoint = runtime.block_on(async {
                    let endpoint = door.open().await?;
                    crate::internet::settle(&endpoint).await;
                    Ok::<_, BindError>(endpoint)
                })?;
                shared.with_endpoint(endpoint)
            }
        };
        let shared = Arc::new(shared);
        shared.emit(NetEvent::Listening { address: shared.reach().to_string() });
        let acceptors = vec![runtime.spawn(accept::accept_loop(shared.clone(), listener)).abort_handle()];
        #[cfg(feature = "iroh")]
        let acceptors = {
            let mut acceptors = acceptors;
            if let (Some(endpoint), Some(door)) = (shared.endpoint(), shared.config.door.clone()) {
                let accepting = crate::internet::accept_loop(shared.clone(), endpoint, door);
                acceptors.push(runtime.spawn(accepting).abort_handle());
            }
            acceptors
        };
        Ok(Self { shared, acceptors, runtime: Mutex::new(Some(runtime)) })
    }

    /// Asks other processes over the internet; none without a [`crate::Door`].
    #[cfg(feature = "iroh")]
    pub fn requester(&self) -> Option<crate::Requester> {
        self.shared.endpoint().map(|endpoint| crate::Requester::of(endpoint, self.shared.handle.clone()))
    }

    /// Looks for a relay meanwhile, and calls `tell` once with whether one answers: as soon as it does, or after `patience`.
    /// Where there are to be none, none answers.
    #[cfg(feature = "iroh")]
    pub fn look_for_relay(&self, patience: Duration, tell: impl FnOnce(bool) + Send + 'static) {
        let endpoint = self.shared.endpoint();
        self.shared.handle.spawn(async move {
            let found = match endpoint {
                Some(endpoint) => tokio::time::timeout(patience, endpoint.online()).await.is_ok(),
                None => false,
            };
            tell(found);
        });
    }

    /// Cuts the link to `peer` for a while, on purpose: nothing goes through in that direction, heartbeats and handshakes
    /// included, and nothing is said to either side. What was sent meanwhile arrives afterwards.
    pub fn cut(&self, peer: PeerId, direction: CutDirection, time: Duration) {
        self.shared.cuts.cut(peer, direction, time);
    }

    /// Damages the next bytes that go to `peer`, on purpose; whether there is a connection. It costs that connection, and
    /// nothing else: the other end sees a wrong checksum.
    pub fn corrupt(&self, peer: PeerId) -> bool {
        self.shared.table.link(peer).is_some_and(|link| {
            link.corrupt_next();
            true
        })
    }

    /// Bulk frames that wait for `peer`.
    pub(crate) fn waiting(&self, peer: PeerId) -> usize {
        self.shared.table.link(peer).map_or(0, |link| link.queue.frames(Priority::Bulk))
    }
}

/// Opens the listening socket.
fn listen(address: &str, buffer: Option<u32>) -> Result<TcpListener, BindError> {
    let parsed: SocketAddr = address.parse().map_err(|error: std::net::AddrParseError| {
        BindError::BadAddress { address: address.to_owned(), why: error.to_string() }
    })?;
    let open = || {
        let socket = socket_for(parsed, buffer)?;
        // A listener that died leaves connections in TIME_WAIT; the next one may have the port all the same.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(parsed)?;
        socket.listen(1024)
    };
    open().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            BindError::PortInUse { host: parsed.ip().to_string(), port: parsed.port() }
        }
        _ => BindError::Refused { address: address.to_owned(), source },
    })
}

/// A socket of the right family with our settings.
fn socket_for(address: SocketAddr, buffer: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = buffer {
        socket.set_send_buffer_size(bytes)?;
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(socket)
}

impl Transport for StreamTransport {
    fn connect(&self, peer: PeerId, address: &str) {
        let shared = self.shared.clone();
        self.shared
            .table
            .want(peer, address, || self.shared.handle.spawn(dial::dial_loop(shared, peer)).abort_handle());
    }

    fn disconnect(&self, peer: PeerId) {
        self.shared.table.unwant(peer, Close::Graceful("disconnected by this side"));
    }

    fn forbid(&self, peer: PeerId) {
        self.shared.table.forbid(peer, Close::Now("cut off by this side"));
    }

    fn send(&self, peer: PeerId, frame: Frame, priority: Priority) -> Result<(), SendError> {
        let config = &self.shared.config;
        frame.check_size(config.max_header, config.max_payload)?;
        let link = self.shared.table.link(peer).ok_or(SendError::NotConnected(peer))?;
        link.send(frame, priority)
    }

    fn silence(&self, peer: PeerId) -> Option<Duration> {
        self.shared.table.link(peer).map(|link| link.silence())
    }

    fn local_address(&self) -> String {
        self.shared.reach().to_string()
    }
}

impl Drop for StreamTransport {
    fn drop(&mut self) {
        self.acceptors.iter().for_each(AbortHandle::abort);
        let links = self.shared.table.close(Close::Graceful("the transport was closed"));
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(runtime) = runtime else { return };
        if runtime::Handle::try_current().is_ok() {
            // Dropped by a task (the sink, say), which must not wait for itself.
            runtime.shutdown_background();
            return;
        }
        let limit = self.shared.config.linger + Duration::from_millis(200);
        runtime.block_on(async {
            let ended = async {
                for link in links {
                    link.ended().await;
                }
            };
            // What hasn't ended by then is cut off below.
            drop(tokio::time::timeout(limit, ended).await);
            #[cfg(feature = "iroh")]
            if let Some(endpoint) = self.shared.endpoint() {
                drop(tokio::time::timeout(limit, endpoint.close()).await);
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
