//! Small questions and their answers, each on a stream of its own: length of the head (4 bytes, little-endian), length of
//! the body (4), head, body. An answer begins with a byte more: 0 if the question was answered; else the head says why not.

use crate::PeerKey;
use iroh::endpoint::{Connection, RecvStream, SendStream};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time,
};

/// Largest head, in bytes.
pub const HEAD_BYTES_MAX: usize = 256 << 10;
/// Largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// How long one question may take to arrive, and its answer to leave; who asks nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same for strangers, so that they are in nobody's way.
const PATIENCE_WITH_STRANGERS: Duration = Duration::from_secs(5);

pub(super) const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;

/// Answers requests. Called from threads that may wait, several at once.
pub trait RequestHandler: Send + Sync {
    /// Most bytes of a body that the owner of this key may send, at most [`BODY_BYTES_MAX`]; 0 for strangers, for whom
    /// there is less time and room.
    fn body_bytes_max(&self, from: &PeerKey) -> usize;

    /// Answers with a head and a body.
    ///
    /// # Errors
    /// Why not, for people; it is told to who asked.
    fn answer(&self, from: PeerKey, head: &[u8], body: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String>;
}

/// Whether the owner of a key may bring nothing.
pub(super) fn is_stranger(handler: &dyn RequestHandler, key: &PeerKey) -> bool {
    handler.body_bytes_max(key) == 0
}

/// Answers what comes on a connection, one after the other, until its other end is gone.
pub(super) async fn serve(connection: Connection, handler: Arc<dyn RequestHandler>) {
    let from = PeerKey(*connection.remote_id().as_bytes());
    loop {
        let patience = if is_stranger(&*handler, &from) { PATIENCE_WITH_STRANGERS } else { PATIENCE };
        let Ok(Ok((send, receive))) = time::timeout(patience, connection.accept_bi()).await else { break };
        let handled = handle(&handler, from, send, receive);
        if !matches!(time::timeout(patience, handled).await, Ok(Ok(()))) {
            break;
        }
    }
    connection.close(0_u32.into(), b"");
}

async fn handle(
    handler: &Arc<dyn RequestHandler>,
    from: PeerKey,
    mut send: SendStream,
    mut receive: RecvStream,
) -> io::Result<()> {
    let body_bytes_max = handler.body_bytes_max(&from).min(BODY_BYTES_MAX);
    let (head, body) = read_parts(&mut receive, body_bytes_max).await?;
    let handler = handler.clone();
    let answer = tokio::task::spawn_blocking(move || handler.answer(from, &head, &body));
    let (kind, head, body) = match answer.await.map_err(io::Error::other)? {
        Ok((head, body)) => (ANSWERED, head, body),
        Err(why) => (REFUSED, why.into_bytes(), Vec::new()),
    };
    send.write_u8(kind).await?;
    write_parts(&mut send, &head, &body).await
}

/// Reads a head and a body.
pub(super) async fn read_parts(
    stream: &mut RecvStream,
    body_bytes_max: usize,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let head = stream.read_u32_le().await? as usize;
    let body = stream.read_u32_le().await? as usize;
    if head > HEAD_BYTES_MAX || body > body_bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than allowed"));
    }
    let (mut head, mut body) = (vec![0; head], vec![0; body]);
    AsyncReadExt::read_exact(stream, &mut head).await?;
    AsyncReadExt::read_exact(stream, &mut body).await?;
    Ok((head, body))
}

/// Writes a head and a body, and ends the stream.
pub(super) async fn write_parts(stream: &mut SendStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    if head.len() > HEAD_BYTES_MAX || body.len() > BODY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "longer than allowed"));
    }
    stream.write_u32_le(head.len() as u32).await?;
    stream.write_u32_le(body.len() as u32).await?;
    AsyncWriteExt::write_all(stream, head).await?;
    AsyncWriteExt::write_all(stream, body).await?;
    stream.shutdown().await
}
