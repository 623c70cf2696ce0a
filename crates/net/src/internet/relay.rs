//! A relay of one's own: processes that have no direct way to each other talk through it, and find each other by it. It sees
//! who talks to whom and how much, and can't read what.

use crate::BindError;
use iroh_relay::server::{RelayConfig, Server, ServerConfig};
use std::net::SocketAddr;
use tokio::runtime;

/// A relay that runs until it is dropped.
pub struct Relay {
    address: SocketAddr,
    server: Option<Server>,
    runtime: runtime::Runtime,
}

impl Relay {
    /// Serves at `address` (`IP:PORT`) over plain HTTP; put a proxy with a certificate in front of it for https.
    ///
    /// # Errors
    /// An address that is none, or is taken.
    pub fn start(address: &str) -> Result<Self, BindError> {
        let bad = |why: std::net::AddrParseError| BindError::BadAddress {
            address: address.to_owned(),
            why: why.to_string(),
        };
        let wanted: SocketAddr = address.parse().map_err(bad)?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("skipstone-relay")
            .enable_all()
            .build()
            .map_err(BindError::Threads)?;
        let mut config = ServerConfig::default();
        config.relay = Some(RelayConfig::new(wanted));
        let refused = |why: String| BindError::Refused {
            address: address.to_owned(),
            source: std::io::Error::other(why),
        };
        let server = runtime.block_on(Server::spawn(config)).map_err(|why| refused(format!("{why:#}")))?;
        let address = server.http_addr().unwrap_or(wanted);
        Ok(Self { address, server: Some(server), runtime })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            drop(self.runtime.block_on(server.shutdown()));
        }
    }
}
