//! From one start of the run to its end, and on with `--resume`: what the parent process does.

use super::hub::HubEvent;
use super::invariants::Observation;
use super::kinds::Fault;
use super::world::{Checked, Event, World};
use skipstone_protocol::SavedState;

/// What the parent of coordinator and nodes knows.
#[derive(Debug, Default)]
pub(super) struct Invocation {
    /// Counts the beginnings anew: what was planned for processes of an earlier one is void.
    pub(super) number: u32,
    /// Where the coordinator is to go on from, until one has said that it did.
    pub(super) resume: Option<SavedState>,
    /// Whether someone asked to stop; each successor of the coordinator is told.
    pub(super) stops: bool,
    /// Whether the log says that the run is over.
    pub(super) over: bool,
    /// Whether the parent is there: between two invocations there is nobody to ask.
    pub(super) began: bool,
    /// When it began.
    pub(super) since_us: u64,
}

impl World {
    /// Ctrl-C.
    pub(super) fn interrupt(&mut self) -> Checked {
        if self.invocation.stops || self.invocation.over || !self.invocation.began {
            return Ok(());
        }
        self.count(Fault::Interrupt);
        self.invocation.stops = true;
        self.observe(&Observation::Interrupted)?;
        self.hub_event(HubEvent::Stop)
    }

    /// Everything dies at once, and is begun anew later.
    pub(super) fn black_out(&mut self) -> Checked {
        let saved = self.folder.manifest().is_some();
        if !saved || self.invocation.number >= self.plan.resumptions_max || self.invocation.over {
            return Ok(());
        }
        self.count(Fault::Blackout);
        if self.hub.is_up() {
            self.crash_hub_now()?;
        }
        self.begin_anew_later();
        Ok(())
    }

    /// An end that is not the last is begun anew from.
    pub(super) fn run_is_over(&mut self) {
        let stopped = self.report.ended == "stopped" || self.report.ended == "died at the end";
        let saved = self.folder.manifest().is_some();
        let more = self.truth.committed() < self.plan.settings.steps;
        if stopped && saved && more && self.invocation.number < self.plan.resumptions_max {
            self.begin_anew_later();
        } else {
            self.finished = true;
        }
    }

    fn begin_anew_later(&mut self) {
        for pid in 0..self.nodes.len() {
            self.end_process(pid);
        }
        self.links.clear();
        self.wiring.unbind_all();
        self.invocation =
            Invocation { number: self.invocation.number + 1, since_us: self.now, ..Invocation::default() };
        let delay = self.draw(self.plan.tempo.restart_us);
        self.schedule(delay, Event::BeginAnew { invocation: self.invocation.number });
    }

    /// `--resume`.
    pub(super) fn begin_anew(&mut self) -> Checked {
        self.report.resumed += 1;
        self.invocation.began = true;
        self.invocation.since_us = self.now;
        let saved = self.folder.manifest().cloned();
        self.invocation.resume = saved
            .map(|(iteration, stages)| SavedState { iteration: self.tamper_with_resume(iteration), stages });
        self.hub.begin_anew();
        self.observe(&Observation::BegunAnew)?;
        let invocation = self.invocation.number;
        for _ in 0..self.plan.settings.nodes() {
            let delay = self.random.between(0, 100_000);
            self.schedule(delay, Event::Spawn { invocation });
        }
        self.hub_event(HubEvent::Start { invocation })
    }
}
