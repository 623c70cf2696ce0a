//! The table of a run's tickets.

use skipstone_worlds::live::remote::{Capability, Invitation};
use std::time::{SystemTime, UNIX_EPOCH};

/// A line a ticket, the oldest first.
pub(crate) fn ticket_table(tickets: &[Invitation]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut text = String::from("ticket  for     holds for\n");
    for known in tickets {
        let left = known.expires_unix_s.saturating_sub(now);
        let holds = match (known.revoked, left) {
            (true, _) => "revoked".to_owned(),
            (false, 0) => "expired".to_owned(),
            (false, left) => format!("{} h {} min", left / 3600, left / 60 % 60),
        };
        text.push_str(&format!("{:>6}  {:<6}  {holds}\n", known.id, known.capability.name()));
    }
    text
}

/// What `--for` takes.
pub(crate) fn parse_capability(text: &str) -> Result<Capability, String> {
    [Capability::Worker, Capability::Viewer, Capability::Admin]
        .into_iter()
        .find(|capability| capability.name() == text)
        .ok_or_else(|| "choose worker, viewer or admin".to_owned())
}

/// What `--revoke` takes.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "pass a ticket's number, as the list of tickets has them".to_owned())
}
