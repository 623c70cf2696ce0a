//! The run secret.

use std::fmt;

/// What the processes of one run share and nobody else knows. It never travels; knowing it is proven.
#[derive(Clone)]
pub struct RunSecret([u8; 32]);

/// A text that is not a run secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run secret is 64 hexadecimal digits")]
pub struct SecretError;

impl RunSecret {
    /// From bytes that are known to be secret.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh one from the operating system's random numbers.
    pub fn generate() -> Self {
        Self(random())
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        blake3::Hash::from_hex(text.trim()).map(|hash| Self(*hash.as_bytes())).map_err(|_| SecretError)
    }

    /// The secret as text, to hand to a child process. Whoever reads it can join the run.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Proof of knowing the secret, bound to a purpose and to everything said so far.
    pub(crate) fn prove(&self, purpose: &str, transcript: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in [purpose.as_bytes()].iter().chain(transcript) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl fmt::Debug for RunSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunSecret(…)")
    }
}

/// Random bytes from the operating system.
///
/// # Panics
/// If the system has no random numbers: nothing safe can be done then.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives no random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_no_leak() {
        let secret = RunSecret::generate();
        let again = RunSecret::from_hex(&secret.to_hex()).unwrap();
        assert_eq!(secret.prove("p", &[b"x"]), again.prove("p", &[b"x"]));
        assert_ne!(secret.prove("p", &[b"x"]), RunSecret::generate().prove("p", &[b"x"]));
        assert_ne!(secret.prove("p", &[b"xy", b"z"]), secret.prove("p", &[b"x", b"yz"]));
        assert!(!format!("{secret:?}").contains(&secret.to_hex()));
        assert!(RunSecret::from_hex("12").is_err());
    }
}
