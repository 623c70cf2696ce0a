//! Being let in by a run, and again after it has started anew.

use super::{JoinError, JoinOptions};
use crate::live::remote::Ticket;
use crate::live::remote::ask::{Answer, Ask, RunPass, ask};
use skipstone_net::{EndpointKey, RequestError, Requester};
use skipstone_protocol::WIRE_VERSION;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the coordinator may be away before the run is asked, and the pause between two questions.
const ASK_AFTER: Duration = Duration::from_secs(2);

/// How long a run may say no before this machine believes it: a coordinator that has just come back may be believed at once,
/// but while nodes only look for their way back nobody need give up.
const REFUSED_AFTER: Duration = Duration::from_secs(60);

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
            Err(why) => return Err(JoinError::Unreachable(why)),
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
    /// The run says no, which may pass.
    NotNow(String),
    /// It goes on saying no.
    Never(JoinError),
}

/// Asks to be let in again while the coordinator is away. A run that goes on after all its processes have ended has another
/// secret, so that who was in before can't come back without a new pass.
pub(super) struct Readmission {
    admission: Admission,
    away: Option<Instant>,
    next: Instant,
    asking: Option<JoinHandle<Result<RunPass, JoinError>>>,
    /// The last no that was told.
    told: Option<String>,
}

impl Readmission {
    /// For a machine that was let in so.
    pub(super) fn new(admission: Admission) -> Self {
        Self { admission, away: None, next: Instant::now(), asking: None, told: None }
    }

    /// Looks after it: `away` says whether any node has no coordinator, `secret` which secret the nodes have. Never blocks.
    pub(super) fn look(&mut self, away: bool, secret: &str) -> Option<Readmitted> {
        let now = Instant::now();
        if !away {
            (self.away, self.told) = (None, None);
        } else if self.away.is_none() {
            self.away = Some(now);
            self.next = now + ASK_AFTER;
        }
        if let Some(asking) = self.asking.take_if(|asking| asking.is_finished()) {
            self.next = now + ASK_AFTER;
            // A thread that panicked has no answer.
            let answer = asking.join().ok()?;
            return self.away.and_then(|since| self.judge(answer, now.duration_since(since), secret));
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

    fn judge(
        &mut self,
        answer: Result<RunPass, JoinError>,
        away: Duration,
        secret: &str,
    ) -> Option<Readmitted> {
        match answer {
            Ok(pass) if pass.secret != secret => {
                self.away = None;
                Some(Readmitted::Anew(Box::new(pass)))
            }
            // It is there, and the nodes will find it; or it is not there.
            Ok(_) | Err(JoinError::Unreachable(_)) => None,
            Err(why) if away > REFUSED_AFTER => Some(Readmitted::Never(why)),
            Err(why) => {
                let why = why.to_string();
                let news = self.told.as_ref() != Some(&why);
                self.told = Some(why.clone());
                news.then_some(Readmitted::NotNow(why))
            }
        }
    }
}
