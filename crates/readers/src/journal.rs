//! The coordinator's journal (`skipstone-protocol`, `journal`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, messages, refused, same, within};
use skipstone_protocol::{
    CommitRecord, Entry, JOURNAL_HEADER, LossAdded, Rebuild, SavedStage, Share, StageCopy, StageRecord,
    decode_journal, encode_entry,
};
use skipstone_types::{
    Attempt, Digest, Iteration, Microbatch, NodeId, Path, PlanEpoch, RunId, StageId, Term, Visit,
};

/// Bytes of an entry before its body: length, and half a digest.
const ENTRY_HEAD: usize = 20;

/// A list takes 1 MiB at most before its elements have been seen, and lists nest three deep; an element takes at most
/// 64 times its bytes.
fn memory_max(input: usize) -> usize {
    (4 << 20) + 64 * input
}

pub(crate) const READER: Reader = Reader {
    name: "journal",
    what: "journal/journal.bin of a run",
    text: false,
    memory_max,
    read,
    mend: Some(mend),
    seeds,
};

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let (entries, valid) = match within(memory_max(bytes.len()), bytes, || decode_journal(bytes))? {
        Ok(read) => read,
        Err(why) => return refused(why),
    };
    if valid > bytes.len() {
        return Err(lost(format!("{valid} bytes of {} are said to be whole", bytes.len())));
    }
    let once = written(&entries);
    let (again, whole) = decode_journal(&once).map_err(lost)?;
    if whole != once.len() {
        return Err(lost(format!("only {whole} of {} bytes are read again", once.len())));
    }
    same(&once, &written(&again))
}

fn written(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = JOURNAL_HEADER.to_vec();
    entries.iter().for_each(|entry| bytes.extend(encode_entry(entry)));
    bytes
}

/// Makes the header and the digest of every entry right.
fn mend(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let header = JOURNAL_HEADER.len();
    if out.len() < header {
        return out;
    }
    out[..header].copy_from_slice(JOURNAL_HEADER);
    let mut at = header;
    while at + ENTRY_HEAD <= out.len() {
        let length = u32::from_le_bytes(std::array::from_fn(|index| out[at + index])) as usize;
        let body = at + ENTRY_HEAD;
        let end = body.saturating_add(length).min(out.len());
        let digest = Digest::of(&out[body..end]);
        out[at + 4..body].copy_from_slice(&digest.0[..16]);
        at = end;
    }
    out
}

/// A record with something in every list.
pub(crate) fn record() -> CommitRecord {
    let visit = |stage, node| Visit { stage: StageId(stage), node: NodeId(node) };
    let share =
        |node, losses| Share { node: NodeId(node), microbatches: vec![Microbatch(0)], losses, norm: 0.75 };
    let stage = |stage, node, losses| StageRecord {
        stage: StageId(stage),
        members: vec![NodeId(node)],
        shares: vec![share(node, losses)],
        gradient: Digest::of(b"gradient"),
        gradient_norm: 0.75,
        clip_factor: 1.0,
        step: true,
        state: Some(Digest::of(b"state")),
        lineage: 1,
    };
    CommitRecord {
        run: RunId(7),
        term: Term(2),
        generation: 0,
        iteration: Iteration(3),
        attempt: Attempt(1),
        plan_epoch: PlanEpoch(4),
        paths: vec![Path(vec![visit(0, 1), visit(1, 2)])],
        stages: vec![
            stage(0, 1, vec![LossAdded { microbatch: Microbatch(0), place: 0 }]),
            stage(1, 2, Vec::new()),
        ],
        loss_sum: 81.5,
        tokens: 64,
        learning_rate: 1e-3,
        previous: Digest::default(),
    }
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let opened = Entry::Opened { run: RunId(7), term: Term(1) };
    let saved = SavedStage { stage: StageId(1), state: Digest::of(b"state"), lineage: 0 };
    let entries = vec![
        opened.clone(),
        Entry::NodesBelow { node: NodeId(12) },
        Entry::Struck { node: NodeId(3), iteration: Iteration(1) },
        Entry::Committed(Box::new(record())),
        Entry::RolledBack { iteration: Iteration(3), generation: 1, stages: vec![saved] },
        Entry::CopyKept(StageCopy {
            stage: StageId(1),
            iteration: Iteration(2),
            lineage: 0,
            state: Digest::of(b"copy"),
        }),
        Entry::Rebuilt(Box::new(Rebuild {
            stage: StageId(2),
            lineage: 1,
            from: Iteration(3),
            recipe: messages::recipe(),
            source_lineages: vec![0, 0],
            state: Digest::of(b"rebuilt"),
        })),
    ];
    Ok(vec![
        ("new".to_owned(), written(&[])),
        ("opened".to_owned(), written(&[opened])),
        ("every-kind".to_owned(), written(&entries)),
    ])
}
