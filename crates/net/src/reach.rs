//! The ways on which a process is reached.

use std::{fmt, str::FromStr};

/// Longest text of a [`Reach`], in bytes.
const TEXT_BYTES_MAX: usize = 2048;

/// Most ways of one process.
pub(crate) const WAYS_MAX: usize = 24;

/// The public key that a process is known by on the internet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The first digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.short())
    }
}

impl FromStr for PeerKey {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes())).map_err(|_| ReachError("a key"))
    }
}

/// A text that names no way to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no address of a process: {0} is missing or damaged")]
pub struct ReachError(&'static str);

/// Where a process is on the internet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InternetReach {
    /// Who it is; nobody else can answer for it.
    pub key: PeerKey,
    /// Where to look for it: `ip:ADDRESS:PORT` and `relay:URL`.
    pub ways: Vec<String>,
}

impl fmt::Display for InternetReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        self.ways.iter().try_for_each(|way| write!(f, ",{way}"))
    }
}

impl FromStr for InternetReach {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        let mut parts = text.split(',');
        let key = parts.next().unwrap_or_default().parse()?;
        let ways: Vec<String> = parts.map(str::to_owned).collect();
        let known = |way: &String| way.starts_with("ip:") || way.starts_with("relay:");
        if ways.len() > WAYS_MAX || !ways.iter().all(known) {
            return Err(ReachError("a way"));
        }
        Ok(Self { key, ways })
    }
}

/// Every way to a process. Its text is `HOST:PORT`, or `tcp:MACHINE:HOST:PORT iroh:KEY,WAY,…` with either part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// For processes of the same machine: its number, and where it listens. Number 0 is any machine.
    pub tcp: Option<(u64, String)>,
    /// For all others.
    pub internet: Option<InternetReach>,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gap = if self.tcp.is_some() && self.internet.is_some() { " " } else { "" };
        match &self.tcp {
            Some((0, address)) if self.internet.is_none() => f.write_str(address)?,
            Some((machine, address)) => write!(f, "tcp:{machine:x}:{address}{gap}")?,
            None => {}
        }
        self.internet.iter().try_for_each(|internet| write!(f, "iroh:{internet}"))
    }
}

impl FromStr for Reach {
    type Err = ReachError;

    fn from_str(text: &str) -> Result<Self, ReachError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ReachError("an end"));
        }
        let mut reach = Self::default();
        for part in text.split_whitespace() {
            if let Some(internet) = part.strip_prefix("iroh:") {
                reach.internet = Some(internet.parse()?);
            } else if let Some((machine, address)) =
                part.strip_prefix("tcp:").and_then(|rest| rest.split_once(':'))
            {
                let machine = u64::from_str_radix(machine, 16).map_err(|_| ReachError("a machine"))?;
                reach.tcp = Some((machine, address.to_owned()));
            } else {
                reach.tcp = Some((0, part.to_owned()));
            }
        }
        if reach == Self::default() { Err(ReachError("everything")) } else { Ok(reach) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_were_written() {
        let tcp = Some((0xab, "127.0.0.1:4000".to_owned()));
        let ways = vec!["ip:[::1]:7".to_owned(), "relay:https://a.example/".to_owned()];
        let internet = Some(InternetReach { key: PeerKey([7; 32]), ways });
        for reach in [
            Reach { tcp: tcp.clone(), internet: None },
            Reach { tcp: None, internet: internet.clone() },
            Reach { tcp, internet },
            Reach { tcp: Some((0, "node-3.example:80".to_owned())), internet: None },
        ] {
            assert_eq!(reach.to_string().parse(), Ok(reach.clone()), "{reach}");
        }
    }

    #[test]
    fn what_names_no_process_is_refused() {
        let key = PeerKey([7; 32]);
        let many = format!("iroh:{key}{}", ",ip:1.2.3.4:5".repeat(WAYS_MAX + 1));
        for bad in ["", " ", "iroh:12", "tcp:xyz:127.0.0.1:1", &format!("iroh:{key},ftp:x"), &many] {
            assert!(bad.parse::<Reach>().is_err(), "{bad}");
        }
        assert!("a".repeat(TEXT_BYTES_MAX + 1).parse::<Reach>().is_err());
    }
}
