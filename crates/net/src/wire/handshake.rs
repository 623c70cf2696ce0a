//! How two ends of a new connection come to trust each other, and agree to keep it.
//!
//! 1. Dialler: magic, version, run, its id, the id it wants, its incarnation, a nonce.
//! 2. Listener: magic, version, code; if all is well: its id, incarnation, nonce, and its proof: a keyed hash
//!    (the key is the run secret) over everything said so far.
//! 3. Dialler: code, and its own proof, over the same.
//! 4. Listener: code. 5. If the dialler has the lower id: dialler, code.
//!
//! Steps 4 and 5 settle which connection stays when both sides dialled. The lower id of a pair decides: its
//! code comes with a number that grows with every connection that it accepts, and the other side keeps the
//! connection with the highest.
//!
//! The first 11 bytes of each direction stay as they are in every version.

use super::{MAGIC, Refusal, Seeds, VERSION, error::OK};
use crate::{NetConfig, PeerId, secret};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HELLO_LEN: usize = 74;
const REPLY_LEN: usize = 59;
const OUTCOME_LEN: usize = 9;

/// Who is at the other end, proven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Introduced {
    pub(crate) peer: PeerId,
    /// Differs between two lives of the same peer.
    pub(crate) incarnation: u64,
    pub(crate) seeds: Seeds,
}

/// Who we are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Myself<'a> {
    pub(crate) config: &'a NetConfig,
    pub(crate) incarnation: u64,
}

/// The dialler's part, up to step 3. A peer whose incarnation is `held` is told that we have a connection to it, and keeps that one.
pub(crate) async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    me: Myself<'_>,
    expected: PeerId,
    held: Option<u64>,
) -> Result<Introduced, Refusal> {
    let hello = hello(me, expected);
    stream.write_all(&hello).await.map_err(Refusal::io)?;
    let mut reply = [0; REPLY_LEN];
    stream.read_exact(&mut reply[..11]).await.map_err(Refusal::io)?;
    check_preamble(&reply)?;
    if reply[10] != OK {
        return Err(Refusal::ByPeer(reply[10]));
    }
    stream.read_exact(&mut reply[11..]).await.map_err(Refusal::io)?;
    let mut proof = [0; 32];
    stream.read_exact(&mut proof).await.map_err(Refusal::io)?;
    let transcript: [&[u8]; 2] = [&hello, &reply];
    let secret = &me.config.secret;
    let incarnation = word(&reply, 19);
    let verdict = if secret.prove("listener", &transcript) != blake3::Hash::from_bytes(proof) {
        Err(Refusal::BadProof)
    } else if word(&reply, 11) != expected.0 {
        Err(Refusal::WrongPeer)
    } else if held == Some(incarnation) {
        Err(Refusal::Duplicate)
    } else {
        Ok(())
    };
    let mut answer = [0; 33];
    match &verdict {
        Ok(()) => answer[1..].copy_from_slice(secret.prove("dialler", &transcript).as_bytes()),
        Err(refusal) => answer[0] = refusal.code(),
    }
    stream.write_all(&answer).await.map_err(Refusal::io)?;
    verdict?;
    let (outgoing, incoming) = seeds(me, &transcript);
    Ok(Introduced { peer: expected, incarnation, seeds: Seeds { outgoing, incoming } })
}

/// The listener's part, up to step 3. `claimed` tells whom the other side says it is, as soon as that is known.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    me: Myself<'_>,
    claimed: &mut Option<PeerId>,
) -> Result<Introduced, Refusal> {
    let mut hello = [0; HELLO_LEN];
    stream.read_exact(&mut hello[..10]).await.map_err(Refusal::io)?;
    let verdict = match check_preamble(&hello) {
        Ok(()) => {
            stream.read_exact(&mut hello[10..]).await.map_err(Refusal::io)?;
            *claimed = Some(PeerId(word(&hello, 18)));
            check_hello(me, &hello)
        }
        Err(Refusal::NotSkipstone) => return Err(Refusal::NotSkipstone),
        Err(refusal) => Err(refusal),
    };
    let mut reply = [0; REPLY_LEN];
    reply[..8].copy_from_slice(&MAGIC);
    reply[8..10].copy_from_slice(&VERSION.to_le_bytes());
    if let Err(refusal) = verdict {
        reply[10] = refusal.code();
        stream.write_all(&reply[..11]).await.map_err(Refusal::io)?;
        return Err(refusal);
    }
    reply[11..19].copy_from_slice(&me.config.id.0.to_le_bytes());
    reply[19..27].copy_from_slice(&me.incarnation.to_le_bytes());
    reply[27..].copy_from_slice(&secret::random::<32>());
    let transcript: [&[u8]; 2] = [&hello, &reply];
    let secret = &me.config.secret;
    let mut message = reply.to_vec();
    message.extend_from_slice(secret.prove("listener", &transcript).as_bytes());
    stream.write_all(&message).await.map_err(Refusal::io)?;
    let mut answer = [0; 33];
    stream.read_exact(&mut answer[..1]).await.map_err(Refusal::io)?;
    match answer[0] {
        OK => {}
        code if code == Refusal::Duplicate.code() => return Err(Refusal::Duplicate),
        code => return Err(Refusal::ByPeer(code)),
    }
    stream.read_exact(&mut answer[1..]).await.map_err(Refusal::io)?;
    let proof: [u8; 32] = std::array::from_fn(|i| answer[i + 1]);
    if secret.prove("dialler", &transcript) != blake3::Hash::from_bytes(proof) {
        return Err(Refusal::BadProof);
    }
    let (incoming, outgoing) = seeds(me, &transcript);
    Ok(Introduced {
        peer: PeerId(word(&hello, 18)),
        incarnation: word(&hello, 34),
        seeds: Seeds { outgoing, incoming },
    })
}

/// Steps 4 and 5: whether the connection is kept, and under which number.
pub(crate) fn outcome(verdict: Result<u64, &Refusal>) -> [u8; OUTCOME_LEN] {
    let mut out = [0; OUTCOME_LEN];
    match verdict {
        Ok(number) => out[1..].copy_from_slice(&number.to_le_bytes()),
        Err(refusal) => out[0] = refusal.code(),
    }
    out
}

/// Reads what [`outcome`] made.
pub(crate) async fn read_outcome<S: AsyncRead + Unpin>(stream: &mut S) -> Result<u64, Refusal> {
    let mut bytes = [0; OUTCOME_LEN];
    stream.read_exact(&mut bytes).await.map_err(Refusal::io)?;
    match bytes[0] {
        OK => Ok(word(&bytes, 1)),
        code if code == Refusal::Duplicate.code() => Err(Refusal::Duplicate),
        code => Err(Refusal::ByPeer(code)),
    }
}

fn hello(me: Myself<'_>, expected: PeerId) -> [u8; HELLO_LEN] {
    let mut hello = [0; HELLO_LEN];
    hello[..8].copy_from_slice(&MAGIC);
    hello[8..10].copy_from_slice(&VERSION.to_le_bytes());
    for (i, word) in [me.config.run, me.config.id.0, expected.0, me.incarnation].into_iter().enumerate() {
        hello[10 + 8 * i..18 + 8 * i].copy_from_slice(&word.to_le_bytes());
    }
    hello[42..].copy_from_slice(&secret::random::<32>());
    hello
}

fn check_preamble(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes[..8] != MAGIC {
        return Err(Refusal::NotSkipstone);
    }
    let theirs = u16::from_le_bytes([bytes[8], bytes[9]]);
    if theirs == VERSION { Ok(()) } else { Err(Refusal::Version { theirs }) }
}

fn check_hello(me: Myself<'_>, hello: &[u8; HELLO_LEN]) -> Result<(), Refusal> {
    let (from, to) = (word(hello, 18), word(hello, 26));
    if word(hello, 10) != me.config.run {
        Err(Refusal::WrongRun)
    } else if to != me.config.id.0 || from == to {
        Err(Refusal::WrongPeer)
    } else {
        Ok(())
    }
}

/// Checksum seeds: from the dialler to the listener, and back.
fn seeds(me: Myself<'_>, transcript: &[&[u8]]) -> (u64, u64) {
    let hash = me.config.secret.prove("checksum seeds", transcript);
    (word(hash.as_bytes(), 0), word(hash.as_bytes(), 8))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
