//! Finding each other on one network, by multicast DNS: where a process has another address than a ticket says, and no relay.

use iroh::Endpoint;
use iroh::address_lookup::AddrFilter;
use iroh_mdns_address_lookup::MdnsAddressLookup;
use std::time::Duration;

/// The service's name: `KEY._skipstone._udp.local`.
const SERVICE: &str = "skipstone";

/// Between questions of a process that knows nobody; what one asks, all others hear, and needn't ask themselves.
const CADENCE: Duration = Duration::from_secs(2);

/// What a process does on its own network, with multicast DNS (RFC 6762, UDP port 5353).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lan {
    /// Nothing.
    #[default]
    Off,
    /// It asks where those are whom it connects to, and says nothing of itself.
    Look,
    /// It also says its key and its addresses to whoever asks there.
    Announce,
}

impl Lan {
    /// Begins; it ends with the endpoint. Where the system has no multicast, others are found by all other ways as ever.
    pub(super) fn begin(self, endpoint: &Endpoint) {
        if self == Self::Off {
            return;
        }
        let lookup = MdnsAddressLookup::builder()
            .service_name(SERVICE)
            .advertise(self == Self::Announce)
            .discovery_cadence(CADENCE)
            .addr_filter(AddrFilter::ip_only())
            .build(endpoint.id());
        if let (Ok(lookup), Ok(services)) = (lookup, endpoint.address_lookup()) {
            services.add(lookup);
        }
    }
}
