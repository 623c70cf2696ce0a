//! `--churn`: a rate, an interval, or a trace (`skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, refused, scratch, within};
use skipstone_worlds::config::Churn;

/// The text, and a kill or a machine and its name a line, whose lists double when they grow.
fn memory_max(input: usize) -> usize {
    (64 << 10) + 32 * input
}

pub(crate) const READER: Reader = Reader {
    name: "churn",
    what: "the trace, or the rate, of `--churn`",
    text: true,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let path = scratch::file("churn.jsonl", bytes)?;
    let path = path.display().to_string();
    // What looks like a rate is one; any other text would name any file of this machine.
    let text =
        std::str::from_utf8(bytes).ok().filter(|text| text.ends_with("%/h") || text.starts_with("every"));
    match within(memory_max(bytes.len()), bytes, || {
        Churn::parse(text.unwrap_or(&path), &|name| (name == "here").then_some(3))
    })? {
        Ok(_) => Ok(Verdict::Taken),
        Err(why) => refused(why),
    }
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    // Nothing in the program writes these: people do.
    let trace = "{\"t_s\": 3.5, \"node\": 2, \"event\": \"kill\"}\n\
                 {\"t_s\": 4, \"event\": \"join\", \"node\": 2}\n\n\
                 {\"t_s\": 9e1, \"stage\": 1, \"event\": \"kill\"}\n\
                 {\"iteration\": 30, \"stage\": 1, \"event\": \"lose\"}\n\
                 {\"t_s\": 1, \"region\": \"here\", \"event\": \"drain\"}\n";
    let machines = "0,add,a\n0,add,b\n60000,remove,a\n60000, add ,c\n";
    let counts = "{\"metadata\": {\"gap_seconds\": 300}, \"data\": [0, 4, 4, 3, 0]}";
    let texts = [
        ("trace", trace),
        ("machines", machines),
        ("counts", counts),
        ("rate", "16%/h"),
        ("interval", "every 20s"),
        ("minutes", "every 1.5 min"),
    ];
    Ok(texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
}
