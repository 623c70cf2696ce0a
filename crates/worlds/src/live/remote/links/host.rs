//! The machine that has links measured.

use super::guest::{CONNECT, GuestOptions, LISTEN, meet, take_part};
use super::machine::{Machine, MachineOptions};
use super::table::{Measured, table};
use super::word::{Member, REGION_BYTES_MAX, Word};
use super::{LinksError, LinksInvitation};
use skipstone_net::{Relays, RunSecret};
use std::time::{Duration, Instant};

/// The most machines of a measurement.
pub const MACHINES_MAX: usize = 32;

/// A machine that is measured has so long for one link.
const LINK: Duration = Duration::from_secs(300);

/// What the host needs.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Through whom machines find each other.
    pub relays: Relays,
    /// How many machines take part, this one among them.
    pub machines: usize,
    /// The region that this machine is in.
    pub region: String,
    /// How long is waited for the others.
    pub patience: Duration,
    /// A table by which links are held back, to rehearse on one machine.
    pub wan: Option<String>,
}

/// Measures the links between so many machines; the text of a table. `tell` hears the invitation first, and then how far it is.
///
/// # Errors
/// See [`LinksError`].
pub fn measure_as_host(
    options: &HostOptions,
    invite: &mut dyn FnMut(&LinksInvitation),
    tell: &mut dyn FnMut(&str),
) -> Result<String, LinksError> {
    if !(2..=MACHINES_MAX).contains(&options.machines) {
        return Err(LinksError::Machines(options.machines));
    }
    if options.region.is_empty() || options.region.len() > REGION_BYTES_MAX {
        return Err(LinksError::Region);
    }
    let secret = RunSecret::generate();
    let number = getrandom::u64().map_err(std::io::Error::other)?;
    let machine = MachineOptions {
        region: options.region.clone(),
        relays: options.relays.clone(),
        secret: secret.clone(),
        number,
        wan: options.wan.clone(),
    };
    let mut machine = Machine::open(&machine)?;
    machine.look_for_relay(&options.relays);
    let invitation = LinksInvitation {
        host: machine.me.0,
        address: machine.member().address,
        secret: secret.to_hex(),
        relays: options.relays.clone(),
    };
    // A second end on this machine is at the other end of the link within its region.
    let beside =
        GuestOptions { invitation: String::new(), region: options.region.clone(), wan: options.wan.clone() };
    let own = invitation.clone();
    let beside = std::thread::spawn(move || take_part(&own, &beside, number, &mut |_| {}));
    invite(&invitation);
    let measured = Host { machine: &mut machine, options, number, tell }.measure();
    if measured.is_ok() {
        // It has been told that it is done.
        drop(beside.join());
    }
    measured
}

struct Host<'a> {
    machine: &'a mut Machine,
    options: &'a HostOptions,
    /// This machine's number.
    number: u64,
    tell: &'a mut dyn FnMut(&str),
}

impl Host<'_> {
    fn measure(&mut self) -> Result<String, LinksError> {
        let members = self.gather()?;
        let guests = &members[1..];
        for guest in guests {
            self.machine.say(guest.id(), &Word::Members(members.clone()));
        }
        meet(self.machine, &members)?;
        for guest in guests {
            self.answer(guest, CONNECT + Duration::from_secs(5), |word| {
                matches!(word, Word::Ready).then_some(())
            })?;
        }
        (self.tell)("all machines are connected to each other; listening to round trips");
        for guest in guests {
            self.machine.say(guest.id(), &Word::Ready);
        }
        let mut measured = Measured::default();
        measured.hear(self.machine.me, &self.machine.listen(LISTEN));
        for guest in guests {
            let heard = self.answer(guest, LISTEN * 3, |word| match word {
                Word::Heard(heard) => Some(heard),
                _ => None,
            })?;
            measured.hear(guest.id(), &heard);
        }
        let pairs = members.len() * (members.len() - 1);
        let mut done = 0;
        for from in &members {
            for to in members.iter().filter(|to| to.peer != from.peer) {
                done += 1;
                (self.tell)(&format!("link {done} of {pairs}: {} to {}", from.region, to.region));
                let load = if from.id() == self.machine.me {
                    let load = self.machine.measure(to.id());
                    load.map_err(|why| LinksError::Gone { whom: named(to), why })?
                } else {
                    self.machine.say(from.id(), &Word::Send(to.peer));
                    self.answer(from, LINK, |word| match word {
                        Word::Sent(load) => Some(load),
                        _ => None,
                    })?
                };
                measured.load(from.id(), to.id(), load);
            }
        }
        for guest in guests {
            self.machine.say(guest.id(), &Word::Done);
        }
        // What was said last is to be heard before the connections end.
        self.machine.hear(Duration::from_millis(500));
        table(&members, &measured)
    }

    /// Waits until all machines are here; this one is the first.
    fn gather(&mut self) -> Result<Vec<Member>, LinksError> {
        // The second end on this machine is one more.
        let wanted = self.options.machines + 1;
        let (mut members, mut beside, began) = (vec![self.machine.member()], false, Instant::now());
        while members.len() < wanted {
            if began.elapsed() > self.options.patience {
                let waited_s = self.options.patience.as_secs();
                let found = members.len() - usize::from(beside);
                return Err(LinksError::Missing { found, wanted: self.options.machines, waited_s });
            }
            let Some((peer, Word::Here(member))) = self.machine.hear(Duration::from_millis(200)) else {
                continue;
            };
            if member.region.is_empty() || member.region.len() > REGION_BYTES_MAX || member.id() != peer {
                self.machine.say(peer, &Word::Refused(LinksError::Region.to_string()));
                continue;
            }
            let others = members.len() - usize::from(beside);
            let own = member.address.starts_with(&format!("tcp:{:x}:", self.number));
            if members.iter().any(|known| known.peer == member.peer) || (own && beside) {
                continue;
            }
            if !own && others == self.options.machines {
                let why = "all machines that it waits for are here already".to_owned();
                self.machine.say(peer, &Word::Refused(why));
                continue;
            }
            if own {
                members.insert(1, member);
                beside = true;
                continue;
            }
            (self.tell)(&format!("a machine in {} is here", member.region));
            members.push(member);
        }
        Ok(members)
    }

    /// What a machine answers; others have been told nothing that they would answer to.
    fn answer<T>(
        &mut self,
        from: &Member,
        patience: Duration,
        mut wanted: impl FnMut(Word) -> Option<T>,
    ) -> Result<T, LinksError> {
        let (until, mut kept) = (Instant::now() + patience, Vec::new());
        let answer = loop {
            if !self.machine.is_up(from.id()) || Instant::now() > until {
                return Err(LinksError::Gone { whom: named(from), why: self.machine.why(from.id()) });
            }
            match self.machine.hear(Duration::from_millis(200)) {
                Some((peer, word)) if peer == from.id() => {
                    if let Some(answer) = wanted(word) {
                        break answer;
                    }
                }
                Some((late, Word::Here(_))) => {
                    let why = "all machines that it waits for are here already".to_owned();
                    self.machine.say(late, &Word::Refused(why));
                }
                // Of those that are asked next.
                Some(other) if kept.len() < 4 * MACHINES_MAX => kept.push(other),
                Some(_) | None => {}
            }
        };
        self.machine.put_back(kept);
        Ok(answer)
    }
}

fn named(member: &Member) -> String {
    format!("the machine in {}", member.region)
}
