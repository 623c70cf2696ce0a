//! What a stranger's machine is given and sends (`skipstone-worlds`): tickets, and questions to a run's reception.

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, within};
use skipstone_net::{EndpointKey, InternetReach, Relays};
use skipstone_types::RunId;
use skipstone_worlds::live::remote::{Ask, Capability, Order, Ticket};

/// The text, its bytes, and the strings in them.
fn memory_max(input: usize) -> usize {
    (64 << 10) + 32 * input
}

pub(crate) const TICKET: Reader = Reader {
    name: "ticket",
    what: "the ticket of `skipstone join`",
    text: true,
    memory_max,
    read: read_ticket,
    mend: None,
    seeds: ticket_seeds,
};

pub(crate) const QUESTION: Reader = Reader {
    name: "question",
    what: "what a machine asks of a run that listens",
    text: true,
    memory_max,
    read: read_question,
    mend: None,
    seeds: question_seeds,
};

fn read_ticket(bytes: &[u8]) -> Result<Verdict, Broken> {
    // Arguments are text before anything reads them.
    let Ok(text) = std::str::from_utf8(bytes) else { return refused("not UTF-8") };
    match within(memory_max(bytes.len()), bytes, || text.parse::<Ticket>())? {
        Ok(ticket) => same(&ticket, &ticket.to_string().parse().map_err(lost)?),
        Err(why) => refused(why),
    }
}

fn read_question(bytes: &[u8]) -> Result<Verdict, Broken> {
    match within(memory_max(bytes.len()), bytes, || serde_json::from_slice::<Ask>(bytes))? {
        Ok(question) => {
            let once = serde_json::to_vec(&question).map_err(lost)?;
            same(&question, &serde_json::from_slice(&once).map_err(lost)?)
        }
        Err(why) => refused(why),
    }
}

fn ticket_seeds() -> Result<Vec<Seed>, SeedError> {
    let key = EndpointKey::from_hex(&"07".repeat(32))?;
    let seed = |name: &str, ways: &[&str], relays: Relays| {
        let capability = match name {
            "relay" => Capability::Viewer,
            "nowhere" => Capability::Admin,
            _ => Capability::Worker,
        };
        let ways = ways.iter().map(|way| (*way).to_owned()).collect();
        let host = InternetReach { key: key.public(), ways };
        let ticket = Ticket::issue(&key, RunId(7), capability, 3, 4_000_000_000, host, relays);
        (name.to_owned(), ticket.to_string().into_bytes())
    };
    let own = Relays::Own(vec!["http://192.0.2.7:3340/".to_owned()]);
    Ok(vec![
        seed("direct", &["ip:192.0.2.1:7000", "ip:[2001:db8::1]:7000"], Relays::None),
        seed("relay", &["relay:https://relay.example./"], Relays::Public),
        seed("own-relay", &["ip:192.0.2.1:7000", "relay:http://192.0.2.7:3340/"], own),
        seed("nowhere", &[], Relays::None),
    ])
}

fn question_seeds() -> Result<Vec<Seed>, SeedError> {
    let path = "state/12/stage-3-0123456789abcdef.safetensors".to_owned();
    let key = "07".repeat(32);
    let questions = [
        (
            "join",
            Ask::Join {
                ticket: "skipstone1".to_owned(),
                version: "0.1.0".to_owned(),
                wire: 9,
                workers: vec![key.clone(), key.clone()],
                region: Some("Japan".to_owned()),
            },
        ),
        ("read", Ask::Read { path: path.clone(), offset: 4 << 20 }),
        ("write", Ask::Write { path, offset: 0, total: 99, digest: key.clone() }),
        ("watch", Ask::Watch { ticket: "skipstone1".to_owned(), offset: 7 }),
        ("manage", Ask::Manage { ticket: "skipstone1".to_owned(), order: Order::Revoke { id: 3 } }),
        ("time", Ask::Time),
        ("gone", Ask::Gone { worker: key }),
    ];
    questions
        .into_iter()
        .map(|(name, question)| Ok((name.to_owned(), serde_json::to_vec(&question)?)))
        .collect()
}
