//! Being let in by a run, and again after it has started anew.

use super::{JoinError, JoinOptions};
use crate::live::remote::Ticket;
use crate::live::remote::ask::{Answer, Ask, RunPass, Unreachable, ask};
use skipstone_net::{EndpointKey, RequestError, Requester};
use skipstone_protocol::WIRE_VERSION;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the coordinator may be away before the run is asked, and the pause between two questions.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// What a machine shows to be let in.
#[derive(Clone)]
pub(super) struct Admission {
    requester: Requester,
    ticket: Ticket,
    /// Public keys of its nodes.
    workers: Vec<String>,
    options: JoinOptions,
}

impl Admission {
    /// With this ticket, for nodes with these keys.
    pub(super) fn new(
        requester: Requester,
        ticket: Ticket,
        keys: &[EndpointKey],
        options: &JoinOptions,
    ) -> Self {
        let workers = keys.iter().map(|key| key.public().to_string()).collect();
        Self { requester, ticket, workers, options: options.clone() }
    }

    /// Asks the run; answers with its options as they are on this machine. Takes as long as the coordinator takes to be found.
    ///
    /// # Errors
    /// It is not found, says no, or has options that are of no use here.
    pub(super) fn ask(&self) -> Result<RunPass, JoinError> {
        let question = Ask::Join {
            ticket: self.options.ticket.trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire: WIRE_VERSION,
            workers: self.workers.clone(),
            region: self.options.region.clone(),
        };
        let mut pass = match ask(&self.requester, &self.ticket.host, &question, &[]) {
            Ok((Answer::Pass(pass), _)) if pass.run == self.ticket.run => *pass,
            Ok(_) => return Err(JoinError::Refused("it answers something else".to_owned())),
            Err(RequestError::Refused(why)) => return Err(JoinError::Refused(why)),
            Err(why) => return Err(Unreachable::new(&self.ticket, why).into()),
        };
        pass.config.shape(pass.vocabulary)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.options.threads.unwrap_or((cores / self.options.workers).max(1));
        pass.config.threads = Some(threads);
        pass.config.out.clone_from(&self.options.dir);
        Ok(pass)
    }
}

/// What came of asking again.
#[derive(Debug)]
pub(super) enum Readmitted {
    /// The run has started anew, and lets this machine in.
    Anew(Box<RunPass>),
    /// The run says no. It does not to a machine that was in, unless that is to stay out: its ticket was revoked, or the run
    /// is another.
    Never(JoinError),
}

/// Asks to be let in again while the coordinator is away. A run that goes on after all its processes have ended has another
/// secret, so that who was in before can't come back without a new pass.
pub(super) struct Readmission {
    admission: Admission,
    away: Option<Instant>,
    next: Instant,
    asking: Option<JoinHandle<Result<RunPass, JoinError>>>,
}

impl Readmission {
    /// For a machine that was let in so.
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, away: None, next: Instant::now(), asking: None }
    }

    /// Looks after it: `away` says whether any node has no coordinator, `secret` which secret the nodes have. Never blocks.
    pub(super) fn look(&mut self, away: bool, secret: &str) -> Option<Readmitted> {
        let now = Instant::now();
        if !away {
            self.away = None;
        } else if self.away.is_none() {
            self.away = Some(now);
            self.next = now + ASK_AFTER;
        }
        if let Some(asking) = self.asking.take_if(|asking| asking.is_finished()) {
            self.next = now + ASK_AFTER;
            // A thread that panicked has no answer.
            let answer = asking.join().ok()?;
            let judged = self.away.and_then(|_| judge(answer, secret));
            if matches!(judged, Some(Readmitted::Anew(_))) {
                self.away = None;
            }
            return judged;
        }
        if self.away.is_some() && self.asking.is_none() && now >= self.next {
            let admission = self.admission.clone();
            self.asking = Some(std::thread::spawn(move || {
                admission.requester.forget(&admission.ticket.host);
                admission.ask()
            }));
        }
        None
    }
}

/// What an answer means to nodes that have this secret.
fn judge(answer: Result<RunPass, JoinError>, secret: &str) -> Option<Readmitted> {
    match answer {
        Ok(pass) if pass.secret != secret => Some(Readmitted::Anew(Box::new(pass))),
        // It is there, and the nodes will find it; or it is not there.
        Ok(_) | Err(JoinError::Unreachable(_)) => None,
        Err(why) => Some(Readmitted::Never(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;
    use skipstone_net::{InternetReach, Relays};
    use skipstone_types::RunId;

    #[test]
    fn a_no_ends_the_stay_at_once_and_silence_does_not() {
        let pass = |secret: &str| RunPass {
            run: RunId(4),
            secret: secret.to_owned(),
            coordinator: String::new(),
            config: RunConfig::default(),
            vocabulary: 256,
            places: Vec::new(),
        };
        assert!(judge(Ok(pass("then")), "then").is_none());
        assert!(matches!(judge(Ok(pass("now")), "then"), Some(Readmitted::Anew(_))));
        let revoked = JoinError::Refused("this ticket was revoked".to_owned());
        assert!(matches!(judge(Err(revoked), "then"), Some(Readmitted::Never(JoinError::Refused(_)))));
        let key = EndpointKey::generate();
        let host = InternetReach { key: key.public(), ways: vec!["ip:192.0.2.1:7000".to_owned()] };
        let ticket =
            Ticket::issue(&key, RunId(4), super::super::super::Capability::Worker, 7, 0, host, Relays::None);
        let why =
            RequestError::Unreachable { key: key.public(), why: "nothing comes back within 20 s".to_owned() };
        let away = Unreachable::new(&ticket, why);
        let said = away.to_string();
        assert!(
            said.starts_with(
                "the run of this ticket (number 7, seen last at 192.0.2.1:7000) can't be reached: nothing comes back"
            ) && !said.contains(&key.public().short()),
            "{said}"
        );
        assert!(judge(Err(away.into()), "then").is_none());
    }
}
