//! One connection to one peer, as the rest of the transport sees it.

use crate::{Frame, NetConfig, PeerId, Priority, SendError, queue::SendQueue, wire::handshake::Introduced};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// How a connection is to end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Close {
    /// After what is queued.
    Graceful(&'static str),
    /// At once.
    Now(&'static str),
}

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) who: Introduced,
    /// Names the connection in our events.
    pub(crate) connection: u64,
    /// The number under which the pair's lower id accepted it.
    pub(crate) number: u64,
    pub(crate) born: Instant,
    pub(crate) queue: SendQueue,
    /// Wakes the task that writes a lane.
    work: [Notify; 2],
    /// A ping to be answered, plus 1; 0 if there is none. Only the last one is answered.
    pong: AtomicU64,
    heard: AtomicU64,
    /// Whether the next bytes are to be damaged.
    corrupt: AtomicBool,
    close: watch::Sender<Option<Close>>,
    ended: watch::Sender<bool>,
}

impl Link {
    pub(crate) fn new(who: Introduced, connection: u64, number: u64, config: &NetConfig) -> Self {
        Self {
            who,
            connection,
            number,
            born: Instant::now(),
            queue: SendQueue::new(config.control, config.bulk),
            work: [Notify::new(), Notify::new()],
            pong: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            corrupt: AtomicBool::new(false),
            close: watch::Sender::new(None),
            ended: watch::Sender::new(false),
        }
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.who.peer
    }

    /// Queues a frame.
    pub(crate) fn send(&self, frame: Frame, priority: Priority) -> Result<(), SendError> {
        self.queue.push(self.peer(), frame, priority)?;
        self.wake(priority);
        Ok(())
    }

    /// Has the task that writes this lane look again.
    pub(crate) fn wake(&self, lane: Priority) {
        self.work[lane.index()].notify_one();
    }

    /// Waits until there is something new to write in the lanes `of`.
    pub(crate) async fn work(&self, of: &[Priority]) {
        if let [lane] = of {
            self.work[lane.index()].notified().await;
            return;
        }
        tokio::select! {
            () = self.work[0].notified() => {}
            () = self.work[1].notified() => {}
        }
    }

    /// Microseconds since the connection was made.
    pub(crate) fn now(&self) -> u64 {
        self.born.elapsed().as_micros() as u64
    }

    /// Something came from the peer.
    pub(crate) fn heard(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    /// How long nothing has come.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_micros(self.now().saturating_sub(self.heard.load(Ordering::Relaxed)))
    }

    /// Has a ping answered.
    pub(crate) fn answer(&self, token: u64) {
        self.pong.store(token.wrapping_add(1), Ordering::Relaxed);
        self.wake(Priority::Control);
    }

    /// The ping to answer now.
    pub(crate) fn take_pong(&self) -> Option<u64> {
        let pong = self.pong.swap(0, Ordering::Relaxed);
        (pong != 0).then(|| pong.wrapping_sub(1))
    }

    /// Has the next bytes damaged.
    pub(crate) fn corrupt_next(&self) {
        self.corrupt.store(true, Ordering::Relaxed);
        self.wake(Priority::Control);
    }

    /// Whether these bytes are to be damaged.
    pub(crate) fn take_corruption(&self) -> bool {
        self.corrupt.load(Ordering::Relaxed) && self.corrupt.swap(false, Ordering::Relaxed)
    }

    /// Asks for the end. `Now` overrides `Graceful`; otherwise the first one counts.
    pub(crate) fn close(&self, how: Close) {
        self.close.send_if_modified(|current| match (&current, how) {
            (None, _) | (Some(Close::Graceful(_)), Close::Now(_)) => {
                *current = Some(how);
                true
            }
            _ => false,
        });
    }

    /// Waits until the end is asked for.
    pub(crate) async fn closing(&self) -> Close {
        let mut watch = self.close.subscribe();
        loop {
            if let Some(how) = *watch.borrow_and_update() {
                return how;
            }
            if watch.changed().await.is_err() {
                return Close::Now("the transport was closed");
            }
        }
    }

    /// Waits until the end is asked to be immediate.
    pub(crate) async fn closing_now(&self) -> &'static str {
        let mut watch = self.close.subscribe();
        loop {
            if let Some(Close::Now(why)) = *watch.borrow_and_update() {
                return why;
            }
            if watch.changed().await.is_err() {
                return "the transport was closed";
            }
        }
    }

    /// Whether the end has been asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.close.borrow().is_some()
    }

    /// Nothing more comes from this link.
    pub(crate) fn set_ended(&self) {
        self.ended.send_replace(true);
    }

    /// Waits until nothing more comes from this link.
    pub(crate) async fn ended(&self) {
        // An error means that the sender is gone, and `self` holds it.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }
}
