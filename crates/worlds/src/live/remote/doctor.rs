//! `skipstone doctor`: whether this machine can take part in a run, and what to do if it can't.

use super::ask::{Answer, Ask, Unreachable, ask_once};
use super::tickets::now_unix_s;
use super::{Capability, Ticket, UnfitTicket};
use crate::config::bytes_in_units;
use crate::live::supervisor::capacity;
use serde::{Deserialize, Serialize};
use skipstone_model::{BenchShape, bench_stage};
use skipstone_net::{EndpointKey, Relays, RequestError, Requester};
use skipstone_protocol::WIRE_VERSION;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Good.
    Ok,
    /// It works, and holds others up.
    Slow,
    /// It does not work.
    Broken,
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Of what.
    pub name: String,
    /// How it came out.
    pub health: Health,
    /// What was seen.
    pub found: String,
    /// What to do; empty if nothing.
    pub advice: String,
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct DoctorOptions {
    /// A run that is to be joined.
    pub ticket: Option<Ticket>,
    /// Through whom machines are to find each other, without a ticket.
    pub relays: Relays,
    /// Where a run's folder, or a node's, would be.
    pub dir: PathBuf,
}

/// A relay that needs longer to answer is of little use.
const RELAY_PATIENCE: Duration = Duration::from_secs(10);
const RELAY_SLOW: Duration = Duration::from_millis(500);

/// Clocks that are further apart make expiries mean different things.
const CLOCK_SLOW_S: f64 = 5.0;
const CLOCK_BROKEN_S: f64 = 300.0;

/// Below it a disk holds up saves.
const DISK_SLOW_MB_PER_S: f64 = 20.0;
const DISK_LEAST_BYTES: u64 = 1 << 30;

/// The least memory with which a node of a small model is sensible.
const MEMORY_LEAST_BYTES: u64 = 1 << 30;

/// A core that does fewer is from before vector units, or shared.
const GFLOPS_SLOW: f64 = 5.0;

fn check(name: &str, health: Health, found: String, advice: &str) -> Check {
    let advice = if health == Health::Ok { String::new() } else { advice.to_owned() };
    Check { name: name.to_owned(), health, found, advice }
}

/// Looks at everything; `tell` hears of each check as it is done. Takes some seconds.
pub fn examine(options: &DoctorOptions, tell: &mut dyn FnMut(&Check)) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |check: Check| {
        tell(&check);
        checks.push(check);
    };
    let found = format!("skipstone {}, wire version {WIRE_VERSION}", env!("CARGO_PKG_VERSION"));
    note(check("version", Health::Ok, found, ""));
    note(memory());
    note(disk(&options.dir));
    note(compute());
    network(options, &mut note);
    checks
}

fn memory() -> Check {
    match capacity::present_bytes() {
        None => check("memory", Health::Ok, "the system does not tell".to_owned(), ""),
        Some(bytes) => {
            let health = if bytes < MEMORY_LEAST_BYTES { Health::Slow } else { Health::Ok };
            let advice =
                "join only small models with it: `skipstone config` tells what a node of a run takes";
            check("memory", health, bytes_in_units(bytes), advice)
        }
    }
}

fn disk(dir: &Path) -> Check {
    let broken = |why: &io::Error| {
        let advice = "choose a folder that you may write to, on a disk that has room";
        check("disk", Health::Broken, format!("{}: {why}", dir.display()), advice)
    };
    let folder = dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let path = folder.join(format!(".skipstone-doctor-{}", std::process::id()));
    let bytes = vec![0x5a_u8; 16 << 20];
    let began = Instant::now();
    let written = skipstone_files::write(&path, &[&bytes]);
    let speed = bytes.len() as f64 / 1e6 / began.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(&path);
    if let Err(why) = written {
        return broken(&why);
    }
    let free = free_bytes(folder);
    let low = free.is_some_and(|free| free < DISK_LEAST_BYTES);
    let health = if low || speed < DISK_SLOW_MB_PER_S { Health::Slow } else { Health::Ok };
    let free = free.map_or(String::new(), |free| format!("{} free, ", bytes_in_units(free)));
    let advice = "saves will hold the node up, or fail: use another disk, or free some space";
    check("disk", health, format!("{free}{speed:.0} MB/s synced"), advice)
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

fn compute() -> Check {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (width, ffn, context, batch) = (256, 688, 128, 4);
    let shape =
        BenchShape { width, layers: 2, heads: 4, kv_heads: 4, ffn, context, batch, threads, repeats: 4 };
    let advice = "other nodes wait for this one: stop what else runs here, or give it fewer --workers";
    match bench_stage(&shape) {
        Err(why) => check("compute", Health::Broken, why.to_string(), "report this, with the machine's kind"),
        Ok(bench) => {
            let parameters = 2 * (4 * width * width + 3 * width * ffn);
            // Forward and backward: 6 operations a parameter and token.
            let gflops = bench.tokens_per_s * 6.0 * parameters as f64 / 1e9 / threads as f64;
            let health = if gflops < GFLOPS_SLOW { Health::Slow } else { Health::Ok };
            let found = format!("{threads} cores, {gflops:.1} GFLOP/s each in training a small stage");
            check("compute", health, found, advice)
        }
    }
}

fn network(options: &DoctorOptions, note: &mut dyn FnMut(Check)) {
    let relays = options.ticket.as_ref().map_or(&options.relays, |ticket| &ticket.relays).clone();
    let requester = match Requester::open(EndpointKey::generate(), relays.clone()) {
        Ok(requester) => requester,
        Err(why) => {
            let advice = "let this program open UDP sockets";
            note(check("network", Health::Broken, why.to_string(), advice));
            return;
        }
    };
    if relays != Relays::None {
        let began = Instant::now();
        let url = requester.home_relay(RELAY_PATIENCE);
        let health = if url.is_some() { Health::Ok } else { Health::Broken };
        let found = match url {
            Some(url) => format!("{url}, after {:.1} s", began.elapsed().as_secs_f64()),
            None => format!("none of '{relays}' answers within {} s", RELAY_PATIENCE.as_secs()),
        };
        let advice = "check the machine's internet access, its proxy and firewall (TCP 443 out); in a LAN, use --relay none";
        note(check("relay", health, found, advice));
    }
    let ways = requester.ways();
    let direct: Vec<&str> = ways.iter().filter_map(|way| way.strip_prefix("ip:")).collect();
    let health = if direct.is_empty() { Health::Broken } else { Health::Ok };
    let advice = "connect the machine to a network";
    note(check("addresses", health, direct.join(" "), advice));
    if let Some(ticket) = &options.ticket {
        run(&requester, ticket, note);
    }
    requester.close();
}

/// Looks at the ticket's run, if it answers, and at the ticket.
fn run(requester: &Requester, ticket: &Ticket, note: &mut dyn FnMut(Check)) {
    let standing = if reach(requester, ticket, note) { ask_standing(requester, ticket) } else { None };
    note(ticket_check(ticket, standing, now_unix_s()));
}

/// Whether the run answers, and speaks as this machine does.
fn reach(requester: &Requester, ticket: &Ticket, note: &mut dyn FnMut(Check)) -> bool {
    let ping = || ask_once(requester, &ticket.host, &Ask::Time);
    let first = match ping() {
        Ok(Answer::Time { unix_s, wire }) => (unix_s, wire),
        Ok(_) => {
            let advice = "install the version of the machine that trains";
            note(check("run", Health::Broken, "it answers something else".to_owned(), advice));
            return false;
        }
        Err(why) => {
            let advice =
                "check that `skipstone train --listen` still runs, and that both sides use the same --relay";
            let found = Unreachable::new(ticket, why).to_string();
            note(check("run", Health::Broken, found, advice));
            return false;
        }
    };
    let began = Instant::now();
    let again = ping().is_ok();
    let round_trip = began.elapsed();
    let slow = !again || round_trip > RELAY_SLOW;
    let health = if slow { Health::Slow } else { Health::Ok };
    let advice = "the way to the run is long or lossy: nodes that are nearer to each other train faster";
    note(check("run", health, format!("answers within {:.1} ms", round_trip.as_secs_f64() * 1e3), advice));
    let (unix_s, wire) = first;
    let health = if wire == WIRE_VERSION { Health::Ok } else { Health::Broken };
    let advice = "install the version of the machine that trains";
    note(check(
        "wire version",
        health,
        format!("the run speaks {wire}, this machine {WIRE_VERSION}"),
        advice,
    ));
    let apart_s = (now_unix_s() as f64 - unix_s as f64).abs();
    let health = match apart_s {
        apart if apart > CLOCK_BROKEN_S => Health::Broken,
        apart if apart > CLOCK_SLOW_S => Health::Slow,
        _ => Health::Ok,
    };
    let advice = "set this machine's clock (NTP): tickets seem to expire at other times";
    note(check("clock", health, format!("{apart_s:.0} s from the run's"), advice));
    wire == WIRE_VERSION
}

/// Whether the run still takes the ticket, or why not; none: it could not be asked. Every ticket shows the run's log, and past its
/// end there is nothing to send.
fn ask_standing(requester: &Requester, ticket: &Ticket) -> Option<Result<(), String>> {
    let question = Ask::Watch { ticket: ticket.to_string(), offset: u64::MAX };
    match ask_once(requester, &ticket.host, &question) {
        Ok(_) => Some(Ok(())),
        Err(RequestError::Refused(why)) => Some(Err(why)),
        Err(_) => None,
    }
}

/// What the ticket lets its owner do, and whether the run (if it could be asked) still takes it.
fn ticket_check(ticket: &Ticket, standing: Option<Result<(), String>>, now_unix_s: u64) -> Check {
    let allows = match ticket.capability {
        Capability::Worker => "lets machines in",
        Capability::Viewer => "only shows the run, and lets no machine in",
        Capability::Admin => "lets machines in, and manages the run",
    };
    let fit = ticket.fits(Capability::Worker, now_unix_s);
    let left_min = ticket.expires_unix_s.saturating_sub(now_unix_s) / 60;
    let (taken, stands) = match standing {
        Some(Ok(())) => {
            (true, format!("the run takes it, for {} h {} min more", left_min / 60, left_min % 60))
        }
        Some(Err(why)) => (false, format!("the run does not take it: {why}")),
        None => {
            let stands = match &fit {
                Err(why @ UnfitTicket::Expired { .. }) => why.to_string(),
                _ => "the run was not asked whether it still takes it".to_owned(),
            };
            (fit.is_ok(), stands)
        }
    };
    let joins = ticket.capability.includes(Capability::Worker);
    let health = if taken && joins { Health::Ok } else { Health::Broken };
    let advice = match (taken, joins) {
        (false, _) => "`skipstone tickets DIR --new`, where the run is, issues one",
        (true, false) => {
            "`skipstone watch TICKET` shows the run; to join, ask for another ticket: `skipstone tickets DIR --new`"
        }
        (true, true) => "",
    };
    check("ticket", health, format!("{allows}; {stands}"), advice)
}

#[cfg(test)]
mod tests {
    use super::super::scene::scene;
    use super::*;
    use skipstone_net::{
        Door, InternetReach, NetConfig, PeerId, Reach, RunSecret, StreamTransport, Transport,
    };
    use skipstone_types::RunId;
    use std::sync::Arc;

    #[test]
    fn a_machine_without_relays_is_looked_at_in_every_respect() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            DoctorOptions { ticket: None, relays: Relays::None, dir: dir.path().join("not").join("yet") };
        let mut heard = 0;
        let checks = examine(&options, &mut |_| heard += 1);
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["version", "memory", "disk", "compute", "addresses"]);
        assert_eq!(heard, 5);
        assert!(checks.iter().all(|check| check.health != Health::Broken), "{checks:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_run_that_is_not_there_is_told() {
        let key = EndpointKey::generate();
        let host =
            skipstone_net::InternetReach { key: key.public(), ways: vec!["ip:127.0.0.1:9".to_owned()] };
        let ticket = Ticket::issue(
            &key,
            skipstone_types::RunId(1),
            Capability::Worker,
            1,
            u64::MAX,
            host,
            Relays::None,
        );
        let mut checks = Vec::new();
        let options = DoctorOptions { ticket: Some(ticket), relays: Relays::None, dir: PathBuf::from(".") };
        network(&options, &mut |check| checks.push(check));
        let run = checks.iter().find(|check| check.name == "run").unwrap();
        assert_eq!(run.health, Health::Broken);
        assert!(run.advice.contains("--listen") && run.found.contains("can't be reached"), "{run:?}");
        let said = checks.iter().find(|check| check.name == "ticket").unwrap();
        assert!(said.found.contains("the run was not asked"), "{said:?}");
    }

    #[test]
    fn a_ticket_is_told_as_the_run_sees_it() {
        let mut scene = scene();
        std::fs::write(scene.dir.path().join("events.jsonl"), "{}\n").unwrap();
        let mut config = NetConfig::new(PeerId(0), 4, RunSecret::generate());
        let mut door = Door::new(scene.tickets.key().clone(), Relays::None);
        door.admits = Arc::new(|_| false);
        door.requests = Some(scene.reception.clone());
        config.door = Some(door);
        let host = StreamTransport::bind(config, "127.0.0.1:0", |_| {}).unwrap();
        let reach: Reach = host.local_address().parse().unwrap();
        let host_reach: InternetReach = reach.internet.unwrap();
        scene.tickets.set_host(&host_reach, &Relays::None).unwrap();
        let requester = Requester::open(EndpointKey::generate(), Relays::None).unwrap();
        let told = |ticket: &Ticket| {
            let mut checks = Vec::new();
            run(&requester, ticket, &mut |check| checks.push(check));
            let check = checks.pop().unwrap();
            assert_eq!(check.name, "ticket", "{checks:?}");
            check
        };
        let mut issue = |capability, life_s| scene.tickets.issue(RunId(4), capability, life_s).unwrap();
        let (worker, viewer, admin) =
            (issue(Capability::Worker, 7300), issue(Capability::Viewer, 60), issue(Capability::Admin, 60));
        let good = told(&worker);
        assert_eq!(good.health, Health::Ok, "{good:?}");
        assert_eq!(good.found, "lets machines in; the run takes it, for 2 h 1 min more");
        assert!(told(&admin).found.contains("manages the run; the run takes it"));
        let watches = told(&viewer);
        assert_eq!(watches.health, Health::Broken);
        assert!(watches.found.contains("lets no machine in") && watches.advice.contains("skipstone watch"));
        scene.tickets.revoke(worker.id).unwrap();
        let revoked = told(&worker);
        assert_eq!(revoked.health, Health::Broken);
        assert!(revoked.found.contains("does not take it: this ticket was revoked"), "{revoked:?}");
        assert!(revoked.advice.contains("--new"), "{revoked:?}");
    }
}
