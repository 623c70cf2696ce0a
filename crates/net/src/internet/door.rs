//! How a process is found on the internet, and whom it lets in.

use super::{EndpointKey, FRAMES, Lan, REQUESTS, RequestHandler};
use crate::{BindError, InternetReach, PeerKey, reach::WAYS_MAX};
use iroh::endpoint::{QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, RelayUrl, TransportAddr};
use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, net::Ipv6Addr, str::FromStr, sync::Arc, time::Duration};

/// A connection on which nothing came for so long is over. A path that is dead is given up sooner, by iroh (15 s).
const IDLE: Duration = Duration::from_secs(60);

/// What may be under way on one stream, in bytes: 200 Mb/s over 300 ms.
const STREAM_WINDOW: u32 = 8 << 20;

/// How long a machine that has no network yet is waited for to get an address.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);

/// Most relays of one's own.
const RELAYS_MAX: usize = 8;

/// Through whom processes find each other, and talk while there is no direct way.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Relays {
    /// The public ones of the iroh project.
    #[default]
    Public,
    /// Nobody: only direct addresses are tried.
    None,
    /// These, by URL.
    Own(Vec<String>),
}

/// Not a choice of relays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no relay; write a URL such as https://relay.example.org, or public, or none")]
pub struct RelaysError(String);

impl Relays {
    fn mode(&self) -> Result<RelayMode, RelaysError> {
        match self {
            Self::Public => Ok(RelayMode::Default),
            Self::None => Ok(RelayMode::Disabled),
            Self::Own(urls) => {
                let parse = |url: &String| url.parse::<RelayUrl>().map_err(|_| RelaysError(url.clone()));
                Ok(RelayMode::custom(urls.iter().map(parse).collect::<Result<Vec<_>, _>>()?))
            }
        }
    }

    /// The ways to a process that may be at any of them.
    fn ways(&self) -> Vec<String> {
        // Relays that are none keep the door shut.
        let urls: Vec<RelayUrl> = self.mode().map(|mode| mode.relay_map().urls()).unwrap_or_default();
        urls.into_iter().map(|url| TransportAddr::Relay(url).to_string()).collect()
    }
}

impl FromStr for Relays {
    type Err = RelaysError;

    fn from_str(text: &str) -> Result<Self, RelaysError> {
        match text {
            "public" => Ok(Self::Public),
            "none" => Ok(Self::None),
            urls => {
                let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
                let plausible = |url: &String| url.starts_with("https://") || url.starts_with("http://");
                if urls.len() > RELAYS_MAX || !urls.iter().all(plausible) {
                    return Err(RelaysError(text.to_owned()));
                }
                let relays = Self::Own(urls);
                relays.mode()?;
                Ok(relays)
            }
        }
    }
}

impl fmt::Display for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::None => f.write_str("none"),
            Self::Own(urls) => f.write_str(&urls.join(",")),
        }
    }
}

/// Whether frames of a key's owner are taken at all.
type Gate = Arc<dyn Fn(&PeerKey) -> bool + Send + Sync>;

/// How a process takes part in the internet.
#[derive(Clone)]
pub struct Door {
    /// Who it is.
    pub key: EndpointKey,
    /// Through whom it is found.
    pub relays: Relays,
    /// Whether it is found, or finds others, by multicast on its own network too.
    pub lan: Lan,
    /// The UDP port; 0 takes any free one, and one that is taken is passed over for any other.
    pub port: u16,
    /// Whom it takes frames from; the run's secret is asked for besides.
    pub admits: Gate,
    /// Who answers requests; none: there are none.
    pub requests: Option<Arc<dyn RequestHandler>>,
}

impl Door {
    /// A door that admits everyone who knows the run's secret, and answers no requests.
    pub fn new(key: EndpointKey, relays: Relays) -> Self {
        Self { key, relays, lan: Lan::Off, port: 0, admits: Arc::new(|_| true), requests: None }
    }

    /// Opens it.
    pub(crate) async fn open(&self) -> Result<Endpoint, BindError> {
        match self.bind(self.port).await {
            Err(_) if self.port != 0 => self.bind(0).await,
            bound => bound,
        }
    }

    async fn bind(&self, port: u16) -> Result<Endpoint, BindError> {
        let failed = |why: String| BindError::Internet(why);
        let window = VarInt::from_u32(STREAM_WINDOW);
        let transport = QuicTransportConfig::builder()
            .max_idle_timeout(Some(IDLE.try_into().map_err(|_| failed("idle time".to_owned()))?))
            .stream_receive_window(window)
            .receive_window(VarInt::from_u32(2 * STREAM_WINDOW))
            .send_window(2 * u64::from(STREAM_WINDOW))
            .max_concurrent_bidi_streams(VarInt::from_u32(16))
            .build();
        let mut alpns = vec![FRAMES.to_vec()];
        if self.requests.is_some() {
            alpns.push(REQUESTS.to_vec());
        }
        let builder = Endpoint::builder(presets::Minimal)
            .relay_mode(self.relays.mode().map_err(|why| failed(why.to_string()))?)
            .secret_key(self.key.inner())
            .alpns(alpns)
            .transport_config(transport)
            .bind_addr((Ipv4Addr::UNSPECIFIED, port))
            .and_then(|builder| builder.bind_addr((Ipv6Addr::UNSPECIFIED, port)))
            .map_err(|why| failed(why.to_string()))?;
        let endpoint = builder.bind().await.map_err(|why| failed(why.to_string()))?;
        self.lan.begin(&endpoint);
        Ok(endpoint)
    }
}

/// Waits until an address of this machine is known, which takes a moment. A relay is not waited for: others are told of all
/// on which it may come to be found, and who can be reached directly must not wait for one that does not answer.
pub(crate) async fn settle(endpoint: &Endpoint) {
    let found = async {
        while !endpoint.addr().addrs.iter().any(TransportAddr::is_ip) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // A machine without a network has none, and may get one later.
    drop(tokio::time::timeout(ADDRESS_PATIENCE, found).await);
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("key", &self.key).field("relays", &self.relays).finish_non_exhaustive()
    }
}

/// Where an endpoint is found. Until it has chosen one of its relays nobody knows on which it will be, or whether any answers:
/// all are named, and who dials tries them at once, beside the direct ways.
pub(crate) fn reach_of(addr: &EndpointAddr, relays: &Relays) -> InternetReach {
    let (at_relays, direct): (Vec<_>, Vec<_>) = addr
        .addrs
        .iter()
        .filter(|way| way.is_ip() || way.is_relay())
        .map(ToString::to_string)
        .partition(|way| way.starts_with("relay:"));
    let mut ways = if at_relays.is_empty() { relays.ways() } else { at_relays };
    // With more ways than may be told it would not be found at all.
    ways.extend(direct.into_iter().take(WAYS_MAX - ways.len().min(WAYS_MAX)));
    InternetReach { key: PeerKey(*addr.id.as_bytes()), ways }
}

/// What iroh is to be told of where somebody is. Ways that it can't use are left out.
pub(super) fn address_of(reach: &InternetReach) -> Option<EndpointAddr> {
    let id = iroh::PublicKey::from_bytes(&reach.key.0).ok()?;
    let ways = reach.ways.iter().filter_map(|way| {
        if let Some(socket) = way.strip_prefix("ip:") {
            socket.parse().ok().map(TransportAddr::Ip)
        } else {
            way.strip_prefix("relay:")?.parse().ok().map(TransportAddr::Relay)
        }
    });
    Some(EndpointAddr::from_parts(id, ways))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(relay: Option<&str>, sockets: usize) -> EndpointAddr {
        let relay = relay.map(|url| TransportAddr::Relay(url.parse().unwrap()));
        let sockets =
            (0..sockets as u16).map(|at| TransportAddr::Ip((Ipv4Addr::LOCALHOST, 4000 + at).into()));
        let id = EndpointKey::generate().inner().public();
        EndpointAddr::from_parts(id, relay.into_iter().chain(sockets))
    }

    #[test]
    fn until_a_relay_is_chosen_all_are_named_and_then_that_one() {
        let relays =
            |reach: &InternetReach| reach.ways.iter().filter(|way| way.starts_with("relay:")).count();
        let own = "https://a.example./,https://b.example./".parse().unwrap();
        for (from, all) in [(Relays::None, 0), (own, 2), (Relays::Public, 4)] {
            let early = reach_of(&endpoint(None, 2), &from);
            assert_eq!((relays(&early), early.ways.len()), (all, all + 2), "{from}: {early}");
            let chosen = reach_of(&endpoint(Some("https://b.example./"), 2), &from);
            assert_eq!((relays(&chosen), chosen.ways.len()), (1, 3), "{from}: {chosen}");
            let address = address_of(&early).unwrap();
            assert_eq!((address.relay_urls().count(), address.ip_addrs().count()), (all, 2), "{early}");
        }
    }

    #[test]
    fn a_machine_with_very_many_addresses_can_still_be_told_of() {
        let reach = reach_of(&endpoint(None, 100), &Relays::Public);
        assert_eq!(reach.ways.iter().filter(|way| way.starts_with("relay:")).count(), 4);
        assert_eq!(reach.to_string().parse(), Ok(reach));
    }

    #[test]
    fn relays_are_read_as_they_were_written() {
        for text in ["public", "none", "https://a.example./", "https://a.example./,http://127.0.0.1:3340/"] {
            assert_eq!(text.parse::<Relays>().unwrap().to_string(), text);
        }
        for bad in ["", "relay.example", "ftp://x", "https://", "https://a.example,,"] {
            assert!(bad.parse::<Relays>().is_err(), "{bad}");
        }
    }
}
