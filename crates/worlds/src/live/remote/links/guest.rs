//! A machine that takes part in a measurement of another.

use super::machine::{Machine, MachineOptions};
use super::word::{Member, Word};
use super::{LinksError, LinksInvitation};
use skipstone_net::{PeerId, RunSecret};
use std::time::{Duration, Instant};

/// How long the host may be out of reach at first, and machines out of each other's.
pub(super) const CONNECT: Duration = Duration::from_secs(60);

/// For how long round trips are listened to.
pub(super) const LISTEN: Duration = Duration::from_secs(4);

/// How long the host may have nothing to say: others are measured meanwhile.
const SILENCE: Duration = Duration::from_secs(3600);

/// What a guest needs.
#[derive(Debug, Clone)]
pub struct GuestOptions {
    /// The invitation's text.
    pub invitation: String,
    /// The region that this machine is in.
    pub region: String,
    /// A table by which its links are held back, to rehearse on one machine.
    pub wan: Option<String>,
}

/// Takes part until the host has measured all.
///
/// # Errors
/// See [`LinksError`].
pub fn measure_as_guest(options: &GuestOptions, tell: &mut dyn FnMut(&str)) -> Result<(), LinksError> {
    let invitation: LinksInvitation = options.invitation.parse()?;
    let number = getrandom::u64().map_err(std::io::Error::other)?;
    take_part(&invitation, options, number, tell)
}

/// The same, on the machine with this number.
pub(super) fn take_part(
    invitation: &LinksInvitation,
    options: &GuestOptions,
    number: u64,
    tell: &mut dyn FnMut(&str),
) -> Result<(), LinksError> {
    let secret = RunSecret::from_hex(&invitation.secret).map_err(|_| LinksError::Invitation)?;
    let machine = MachineOptions {
        region: options.region.clone(),
        relays: invitation.relays.clone(),
        secret,
        number,
        wan: options.wan.clone(),
    };
    let mut machine = Machine::open(&machine)?;
    let host = PeerId(invitation.host);
    machine.connect(host, &invitation.address);
    wait_for(&mut machine, &[host], &|_| "the host".to_owned())?;
    tell("connected to the host; waiting for the other machines");
    machine.say(host, &Word::Here(machine.member()));
    let mut heard = Instant::now();
    loop {
        let word = machine.hear(Duration::from_secs(1));
        if !machine.is_up(host) || heard.elapsed() > SILENCE {
            return Err(LinksError::Gone { whom: "the host".to_owned(), why: machine.why(host) });
        }
        // The others are obeyed in nothing.
        let Some((_, word)) = word.filter(|(from, _)| *from == host) else { continue };
        heard = Instant::now();
        match word {
            Word::Refused(why) => return Err(LinksError::Refused(why)),
            Word::Members(members) => {
                meet(&mut machine, &members)?;
                machine.say(host, &Word::Ready);
            }
            Word::Ready => {
                tell("listening to round trips");
                let heard = machine.listen(LISTEN);
                machine.say(host, &Word::Heard(heard));
            }
            Word::Send(to) => {
                tell("sending");
                let load = machine.measure(PeerId(to));
                let load = load.map_err(|why| LinksError::Gone { whom: "a machine".to_owned(), why })?;
                machine.say(host, &Word::Sent(load));
            }
            Word::Done => return Ok(()),
            Word::Here(_) | Word::Heard(_) | Word::Sent(_) | Word::Load | Word::Took(_) => {}
        }
    }
}

/// Connects to those before this machine, and waits for those after it.
pub(super) fn meet(machine: &mut Machine, members: &[Member]) -> Result<(), LinksError> {
    let me = machine.me;
    let before = members.iter().take_while(|member| member.id() != me);
    before.filter(|member| !machine.is_up(member.id())).for_each(|member| {
        machine.connect(member.id(), &member.address);
    });
    let others: Vec<PeerId> = members.iter().map(Member::id).filter(|id| *id != me).collect();
    let name = |peer| {
        let member = members.iter().find(|member| member.id() == peer);
        member.map_or("a machine".to_owned(), |member| format!("the machine in {}", member.region))
    };
    wait_for(machine, &others, &name)
}

/// Waits until there is a connection to all of these.
fn wait_for(
    machine: &mut Machine,
    peers: &[PeerId],
    name: &dyn Fn(PeerId) -> String,
) -> Result<(), LinksError> {
    let until = Instant::now() + CONNECT;
    let mut kept = Vec::new();
    while let Some(missing) = peers.iter().find(|peer| !machine.is_up(**peer)) {
        if Instant::now() > until {
            return Err(LinksError::Unreachable { whom: name(*missing), why: machine.why(*missing) });
        }
        kept.extend(machine.hear(Duration::from_millis(50)));
    }
    machine.put_back(kept);
    Ok(())
}
