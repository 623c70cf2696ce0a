//! `skipstone doctor --links`: a table of the links between machines.

use crate::failure::{Failure, Outcome};
use crate::output::say;
use skipstone_net::Relays;
use skipstone_worlds::live::remote::{
    GuestOptions, HostOptions, LinksError, measure_as_guest, measure_as_host,
};
use std::path::Path;
use std::time::Duration;

/// Measures the links between this machine and others, and writes the table.
pub(super) fn host(
    file: &Path,
    machines: usize,
    region: String,
    relays: Relays,
    patience_s: f64,
    wan: Option<String>,
) -> Outcome {
    let options =
        HostOptions { relays, machines, region, patience: Duration::from_secs_f64(patience_s), wan };
    let others = machines.saturating_sub(1);
    let text = measure_as_host(
        &options,
        &mut |invitation| {
            say(&format!("on {others} other machine(s), each with the name of its region:"));
            say(&format!("  skipstone doctor {invitation} --region NAME"));
        },
        &mut |line| say(line),
    )
    .map_err(failure)?;
    skipstone_files::write(file, &[text.as_bytes()]).map_err(|why| {
        Failure::failed(format!("{}: {why}; check the folder and its permissions", file.display()))
    })?;
    let file = file.display();
    say(&format!("{file} is a table for `train --listen --links {file}` and `simulate --wan {file}`"));
    Ok(())
}

/// Takes part in another machine's measurement.
pub(super) fn guest(invitation: String, region: Option<String>, wan: Option<String>) -> Outcome {
    let region = region.ok_or_else(|| {
        Failure::input("--region NAME says where this machine is: machines near each other have the same")
    })?;
    let options = GuestOptions { invitation, region, wan };
    measure_as_guest(&options, &mut |line| say(line)).map_err(failure)?;
    say("done: the table is on the machine that the invitation is from");
    Ok(())
}

fn failure(why: LinksError) -> Failure {
    match why {
        LinksError::Machines(_)
        | LinksError::Region
        | LinksError::Invitation
        | LinksError::Wan { .. }
        | LinksError::UnknownRegion { .. } => Failure::input(why),
        why => Failure::failed(why),
    }
}
