//! What a run that listens tells other machines.

use crate::config::RunConfig;
use crate::live::supervisor::{ListenOptions, RunError};
use skipstone_net::InternetReach;
use std::path::{Path, PathBuf};

/// A number that tells this machine from others; 0 where there are none.
pub(super) fn machine_number(listens: bool) -> Result<u64, RunError> {
    if !listens {
        return Ok(0);
    }
    getrandom::u64().map(|number| number | 1).map_err(|why| RunError::Listen(why.to_string()))
}

/// The options as other machines may know them: no paths of this one, and no command to run.
pub(super) fn for_others(config: &RunConfig) -> RunConfig {
    RunConfig {
        data: None,
        notice_command: None,
        threads: None,
        wan: None,
        links: None,
        out: PathBuf::new(),
        ..config.clone()
    }
}

/// The UDP port of an address.
pub(super) fn udp_port_of(reach: &InternetReach) -> Option<u16> {
    reach.ways.iter().find_map(|way| way.strip_prefix("ip:")?.rsplit(':').next()?.parse().ok())
}

/// The UDP port that the run in this folder had when it listened last.
#[cfg(feature = "iroh")]
pub(super) fn port_before(dir: &Path) -> Option<u16> {
    // A list that can't be read has no port to keep to.
    udp_port_of(&crate::live::remote::Tickets::read(dir).ok()?.host()?)
}

#[cfg(not(feature = "iroh"))]
pub(super) fn port_before(_: &Path) -> Option<u16> {
    None
}

/// Notes where the coordinator is.
#[cfg(feature = "iroh")]
pub(super) fn note_host(dir: &Path, address: &str, listen: &ListenOptions) -> Result<(), RunError> {
    let failed = |why: String| RunError::Listen(why);
    let relays = listen.relays.parse().map_err(|why: skipstone_net::RelaysError| failed(why.to_string()))?;
    crate::live::remote::note_host(dir, address, &relays).map_err(|why| failed(why.to_string()))
}

#[cfg(not(feature = "iroh"))]
pub(super) fn note_host(_: &Path, _: &str, _: &ListenOptions) -> Result<(), RunError> {
    Err(RunError::Listen("this build has no way to other machines (feature iroh)".to_owned()))
}

/// Issues a ticket; says how it is used.
#[cfg(feature = "iroh")]
pub(super) fn invitation(
    dir: &Path,
    run: skipstone_types::RunId,
    by_relay: bool,
    listen: &ListenOptions,
) -> Result<String, RunError> {
    let ticket = crate::live::remote::invite(dir, run, listen.ticket_life_s)
        .map_err(|why| RunError::Listen(why.to_string()))?;
    if let Some(file) = &listen.ticket_file {
        let text = format!("{ticket}\n");
        skipstone_files::write(file, &[text.as_bytes()])
            .map_err(|why| RunError::Listen(format!("--ticket-file {}: {why}", file.display())))?;
    }
    let way = match (by_relay, listen.relays.as_str()) {
        (true, _) => "",
        (false, "none") => "\n(no relay: machines must reach an address of this one directly)",
        (false, _) => "\n(no relay answers: machines must reach an address of this one directly)",
    };
    Ok(format!("other machines join with:\n\n  skipstone join {ticket}\n{way}"))
}

#[cfg(not(feature = "iroh"))]
pub(super) fn invitation(
    _: &Path,
    _: skipstone_types::RunId,
    _: bool,
    _: &ListenOptions,
) -> Result<String, RunError> {
    Err(RunError::Listen("this build has no way to other machines (feature iroh)".to_owned()))
}
