//! What a machine needs to take part in a measurement: a line of text. Whoever has it can.

use super::LinksError;
use serde::{Deserialize, Serialize};
use skipstone_net::Relays;
use std::fmt;
use std::str::FromStr;

/// What every invitation begins with; the number is its format.
const PREFIX: &str = "skipstonelinks1";

/// Longest text.
const TEXT_BYTES_MAX: usize = 8192;

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinksInvitation {
    pub(super) host: u64,
    pub(super) address: String,
    pub(super) secret: String,
    pub(super) relays: Relays,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: u64,
    address: String,
    secret: String,
    relays: String,
}

impl LinksInvitation {
    /// Whether a text is meant as one.
    pub fn is_meant(text: &str) -> bool {
        text.trim().starts_with(PREFIX)
    }
}

impl fmt::Display for LinksInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Written {
            host: self.host,
            address: self.address.clone(),
            secret: self.secret.clone(),
            relays: self.relays.to_string(),
        };
        let bytes = serde_json::to_vec(&written).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for LinksInvitation {
    type Err = LinksError;

    fn from_str(text: &str) -> Result<Self, LinksError> {
        let damaged = || LinksError::Invitation;
        let text = text.trim();
        let code = text.strip_prefix(PREFIX).filter(|_| text.len() <= TEXT_BYTES_MAX).ok_or_else(damaged)?;
        let bytes = data_encoding::BASE32_NOPAD.decode(code.to_ascii_uppercase().as_bytes());
        let written: Written =
            serde_json::from_slice(&bytes.map_err(|_| damaged())?).map_err(|_| damaged())?;
        let relays = written.relays.parse().map_err(|_| damaged())?;
        Ok(Self { host: written.host, address: written.address, secret: written.secret, relays })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_nothing_else_is() {
        let invitation = LinksInvitation {
            host: 7,
            address: "tcp:1:127.0.0.1:9".to_owned(),
            secret: "ab".repeat(32),
            relays: Relays::None,
        };
        let text = invitation.to_string();
        assert!(LinksInvitation::is_meant(&text) && text.parse::<LinksInvitation>().unwrap() == invitation);
        for bad in
            ["", "skipstone1abc", PREFIX, &text[..text.len() - 3], &format!("{PREFIX}{}", "a".repeat(9000))]
        {
            assert!(bad.parse::<LinksInvitation>().is_err(), "{bad}");
        }
    }
}
