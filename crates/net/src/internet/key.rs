//! The key that a process proves who it is with.

use crate::{PeerKey, RunSecret, SecretError, secret};
use std::fmt;

/// A secret key (ed25519). Whoever has it is the process.
#[derive(Clone)]
pub struct EndpointKey(iroh::SecretKey);

impl EndpointKey {
    /// A fresh one from the operating system's random numbers.
    pub fn generate() -> Self {
        Self(iroh::SecretKey::from_bytes(&secret::random()))
    }

    /// Reads what [`to_hex`](Self::to_hex) wrote.
    ///
    /// # Errors
    /// Anything but 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, SecretError> {
        let bytes = blake3::Hash::from_hex(text.trim()).map_err(|_| SecretError)?;
        Ok(Self(iroh::SecretKey::from_bytes(bytes.as_bytes())))
    }

    /// The secret as text, for a file that only its owner reads, or a child's pipe.
    pub fn to_hex(&self) -> String {
        RunSecret::new(self.0.to_bytes()).to_hex()
    }

    /// The public half.
    pub fn public(&self) -> PeerKey {
        PeerKey(*self.0.public().as_bytes())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    pub(crate) fn inner(&self) -> iroh::SecretKey {
        self.0.clone()
    }
}

impl PeerKey {
    /// Whether the owner of this key signed the message.
    pub fn has_signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = iroh::Signature::from_bytes(signature);
        iroh::PublicKey::from_bytes(&self.0).is_ok_and(|key| key.verify(message, &signature).is_ok())
    }
}

impl fmt::Debug for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointKey(of {})", self.public().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        let key = EndpointKey::generate();
        let again = EndpointKey::from_hex(&key.to_hex()).unwrap();
        assert_eq!(key.public(), again.public());
        let signature = again.sign(b"join");
        assert!(key.public().has_signed(b"join", &signature));
        assert!(!key.public().has_signed(b"leave", &signature));
        assert!(!EndpointKey::generate().public().has_signed(b"join", &signature));
        assert!(!PeerKey([255; 32]).has_signed(b"join", &signature), "no key at all");
        assert!(!format!("{key:?}").contains(&key.to_hex()));
    }
}
