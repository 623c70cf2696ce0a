//! `skipstone watch`: what goes on in a run elsewhere.

use super::ask::{Answer, Ask, Unreachable, ask};
use super::tickets::now_unix_s;
use super::{Capability, Ticket, TicketError, UnfitTicket};
use skipstone_net::{BindError, EndpointKey, RequestError, Requester};
use skipstone_observe::{Progress, RunInfo, Spectator, SpectatorError, Summary};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Time between questions.
const ASK: Duration = Duration::from_secs(1);

/// Time between frames.
const FRAME: Duration = Duration::from_millis(100);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a run that does not answer is asked again.
const SILENCE: Duration = Duration::from_secs(10);

/// Why a run can't be watched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Not a ticket.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Its time is over.
    #[error(transparent)]
    Unfit(#[from] UnfitTicket),
    /// The network can't be used at all.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The coordinator was not reached.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It says no.
    #[error("the run does not show itself: {0}")]
    Refused(String),
    /// What it shows is no log.
    #[error(transparent)]
    Log(#[from] SpectatorError),
}

/// How a run was left.
#[derive(Debug)]
pub enum Watched {
    /// It has ended.
    Ended(Box<Summary>),
    /// It does not answer any more: it has ended, or its computer is away.
    Silent(Box<Summary>),
}

struct Window<'a> {
    ticket: &'a Ticket,
    requester: Requester,
    offset: u64,
}

impl Window<'_> {
    /// The next piece of the log.
    fn look(&mut self) -> Result<(RunInfo, Vec<u8>, bool), WatchError> {
        let question = Ask::Watch { ticket: self.ticket.to_string(), offset: self.offset };
        match ask(&self.requester, &self.ticket.host, &question, &[]) {
            Ok((Answer::Log { info, total }, piece)) => {
                self.offset += piece.len() as u64;
                Ok((*info, piece, self.offset < total))
            }
            Ok(_) => Err(WatchError::Refused("it answers something else".to_owned())),
            Err(RequestError::Refused(why)) => Err(WatchError::Refused(why)),
            Err(why) => Err(Unreachable::new(self.ticket, why).into()),
        }
    }
}

/// Shows a run until it ends; Ctrl-C ends the process, and disturbs nobody.
///
/// # Errors
/// See [`WatchError`].
pub fn watch(ticket: &str, progress: Progress) -> Result<Watched, WatchError> {
    let ticket: Ticket = ticket.parse()?;
    ticket.fits(Capability::Viewer, now_unix_s())?;
    let requester = Requester::open(EndpointKey::generate(), ticket.relays.clone())?.with_patience(PATIENCE);
    let mut window = Window { ticket: &ticket, requester, offset: 0 };
    let (info, piece, mut more) = window.look()?;
    let mut spectator = Spectator::new(info, progress);
    spectator.read(&piece)?;
    let mut heard = Instant::now();
    // An end before the last piece is that of an earlier part of a run that was gone on with.
    while more || spectator.finished().is_none() {
        if !more {
            let asked = Instant::now();
            let mut shown = asked;
            while asked.elapsed() < ASK {
                std::thread::sleep(FRAME);
                spectator.tick(shown.elapsed().as_millis() as u64);
                shown = Instant::now();
            }
        }
        match window.look() {
            Ok((_, piece, further)) => {
                (more, heard) = (further, Instant::now());
                spectator.read(&piece)?;
            }
            Err(WatchError::Unreachable(why)) if heard.elapsed() < SILENCE => {
                more = false;
                spectator.note(&format!("{why}; asking again"));
            }
            Err(WatchError::Unreachable(_)) => {
                window.requester.close();
                return Ok(Watched::Silent(Box::new(spectator.finish())));
            }
            Err(why) => return Err(why),
        }
    }
    window.requester.close();
    Ok(Watched::Ended(Box::new(spectator.finish())))
}
