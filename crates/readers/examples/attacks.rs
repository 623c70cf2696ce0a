//! Writes the hostile files of binary formats, made from good input of today's version: `attacks FOLDER` makes
//! `FOLDER/READER/NAME`. Run it again when a format changes; hostile text is written by hand.

use skipstone_net::wire::{HEAD_LEN, body_sum};
use skipstone_readers::{Reader, SeedError};
use std::fs;
use std::path::PathBuf;

/// Seeds the checksums of the reader of frames.
const FRAME_SEED: u64 = 42;

fn main() -> Result<(), SeedError> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("name the folder to write to")?);
    let all = [
        ("frames", frames()?),
        ("to_worker", to_worker()?),
        ("to_coordinator", to_coordinator()?),
        ("to_peer", to_peer()?),
        ("journal", journal()?),
        ("weights", weights()?),
        ("stage_file", stage_file()?),
        ("tokens", tokens()?),
    ];
    for (reader, attacks) in all {
        fs::create_dir_all(folder.join(reader))?;
        for (name, bytes) in attacks {
            fs::write(folder.join(reader).join(name), bytes)?;
        }
    }
    Ok(())
}

type Attacks = Vec<(&'static str, Vec<u8>)>;

fn seed(reader: &str, name: &str) -> Result<Vec<u8>, SeedError> {
    let reader = Reader::named(reader).ok_or("no such reader")?;
    let found = (reader.seeds)()?.into_iter().find(|(other, _)| other == name);
    found.map(|(_, bytes)| bytes).ok_or_else(|| format!("no seed {name} of {}", reader.name).into())
}

/// The bytes with others at a place.
fn with(bytes: &[u8], at: usize, others: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at..at + others.len()].copy_from_slice(others);
    out
}

/// The bytes with others in the place of some.
fn instead(bytes: &[u8], of: &[u8], others: &[u8]) -> Result<Vec<u8>, SeedError> {
    let at =
        bytes.windows(of.len()).position(|window| window == of).ok_or("the seed lacks what is replaced")?;
    Ok([&bytes[..at], others, &bytes[at + of.len()..]].concat())
}

/// The record at `at` with other bytes in its head, and the head's checksum made right.
fn head(stream: &[u8], at: usize, field: usize, others: &[u8]) -> Vec<u8> {
    let mut out = with(stream, at + field, others);
    let sum = body_sum(&out[at..at + 40], &[], FRAME_SEED);
    out[at + 40..at + HEAD_LEN].copy_from_slice(&sum.to_le_bytes());
    out
}

fn frames() -> Result<Attacks, SeedError> {
    let message = seed("frames", "message")?;
    let tensor = seed("frames", "tensor-in-pieces")?;
    let lanes = seed("frames", "two-lanes")?;
    let beats = seed("frames", "heartbeats")?;
    // First record of the tensor: head, header of 8 bytes, piece of 1024.
    let second = HEAD_LEN + 8 + 1024;
    Ok(vec![
        ("header-of-4-GiB", head(&message, 0, 4, &u32::MAX.to_le_bytes())),
        ("payload-of-2-pow-63", head(&tensor, 0, 8, &(1_u64 << 63).to_le_bytes())),
        ("payload-of-2-pow-64", head(&tensor, 0, 8, &u64::MAX.to_le_bytes())),
        ("piece-of-4-GiB", head(&tensor, 0, 16, &u32::MAX.to_le_bytes())),
        ("piece-larger-than-payload", head(&tensor, 0, 16, &2804_u32.to_le_bytes())),
        ("piece-of-nothing", head(&tensor, 0, 16, &0_u32.to_le_bytes())),
        (
            "pieces-beyond-the-payload",
            [&head(&tensor, second, 16, &1780_u32.to_le_bytes())[..], &[0; 900]].concat(),
        ),
        ("payload-that-grows", head(&tensor, second, 8, &4000_u64.to_le_bytes())),
        ("payload-that-changes-kind", head(&tensor, second, 2, &[2])),
        ("header-in-a-later-piece", head(&tensor, second, 4, &1_u32.to_le_bytes())),
        ("floats-of-3-bytes", head(&tensor, 0, 8, &2803_u64.to_le_bytes())),
        ("payload-of-no-kind", head(&tensor, 0, 2, &[0])),
        ("kind-of-record-unknown", head(&message, 0, 0, &[9])),
        ("kind-of-payload-unknown", head(&message, 0, 2, &[9])),
        ("lane-unknown", head(&message, 0, 1, &[2])),
        ("reserved-byte", head(&message, 0, 3, &[1])),
        ("piece-of-no-frame", head(&message, 0, 0, &[2])),
        ("frame-within-a-frame", head(&tensor, second, 0, &[1])),
        ("sequence-repeated", [&message[..], &message].concat()),
        ("sequence-of-2-pow-64", head(&message, 0, 24, &u64::MAX.to_le_bytes())),
        ("heartbeat-with-contents", head(&beats, 0, 4, &1_u32.to_le_bytes())),
        ("checksum-of-head", with(&message, 9, &[1])),
        ("checksum-of-body", with(&message, HEAD_LEN, b"A")),
        ("ends-within-a-head", message[..HEAD_LEN - 1].to_vec()),
        ("ends-within-a-piece", tensor[..second - 5].to_vec()),
        ("ends-between-pieces", tensor[..second].to_vec()),
        ("bytes-of-another-program", b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec()),
        ("lanes-swapped", head(&lanes, 0, 24, &1_u64.to_le_bytes())),
    ])
}

/// The largest number that postcard writes, in ten bytes, and one byte too many.
const LARGEST: [u8; 10] = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
const TOO_LONG: [u8; 11] = [0xff; 11];

fn to_worker() -> Result<Attacks, SeedError> {
    let fence = seed("to_worker", "fence")?;
    let refuse = seed("to_worker", "refuse")?;
    // The fence ends in a count, 1, and a node.
    let list = &fence[..fence.len() - 2];
    // The refusal ends in a length and 11 letters.
    let text = &refuse[..refuse.len() - 12];
    let kind = list.len() - 1;
    Ok(vec![
        ("list-of-2-pow-64", [list, &LARGEST].concat()),
        ("list-of-2-pow-40", [list, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x20]].concat()),
        ("list-longer-than-the-message", [list, &[9, 1, 2, 3]].concat()),
        ("length-in-11-bytes", [list, &TOO_LONG].concat()),
        ("node-above-32-bits", [list, &[1], &LARGEST].concat()),
        ("text-of-2-pow-64", [text, &LARGEST, b"another run"].concat()),
        ("text-not-utf8", [text, &[3, 0xff, 0xfe, 0x80]].concat()),
        ("message-of-no-kind", with(&fence, kind, &[0x7f])),
        ("version-99", with(&fence, 0, &[99])),
        ("version-in-11-bytes", TOO_LONG.to_vec()),
        ("another-run", with(&fence, 1, &[8])),
        ("bytes-too-many", [&fence[..], &[0]].concat()),
        ("cut-short", seed("to_worker", "commit")?[..60].to_vec()),
        ("empty", Vec::new()),
        ("address-not-utf8", instead(&seed("to_worker", "begin")?, b"7f@127", b"\xff\xfe@127")?),
    ])
}

fn to_coordinator() -> Result<Attacks, SeedError> {
    let hello = seed("to_coordinator", "hello")?;
    let again = seed("to_coordinator", "hello-again")?;
    let at = hello.windows(3).position(|window| window == b"7f@").ok_or("the hello names no address")? - 1;
    Ok(vec![
        ("address-of-2-pow-64", [&hello[..at], &LARGEST, b"7f@"].concat()),
        ("address-not-utf8", with(&hello, at + 1, &[0xff, 0xfe])),
        ("holding-neither-there-nor-not", with(&hello, at - 1, &[2])),
        ("holding-cut-short", again[..40].to_vec()),
        ("message-of-no-kind", with(&hello, at - 2, &[0x7f])),
        ("bytes-too-many", [&hello[..], &[1, 2, 3]].concat()),
        ("version-99", with(&hello, 0, &[99])),
        ("empty", Vec::new()),
    ])
}

fn to_peer() -> Result<Attacks, SeedError> {
    let forward = seed("to_peer", "forward")?;
    let last = forward.len() - 1;
    Ok(vec![
        ("direction-of-no-kind", with(&forward, last, &[2])),
        ("stage-above-16-bits", [&forward[..last - 1], &[0xff, 0xff, 0x7f, 0]].concat()),
        ("microbatch-in-11-bytes", [&forward[..last - 2], &TOO_LONG].concat()),
        ("cut-short", forward[..last].to_vec()),
        ("bytes-too-many", [&forward[..], &[0]].concat()),
        ("another-run", with(&forward, 1, &[9])),
        ("empty", Vec::new()),
    ])
}

fn journal() -> Result<Attacks, SeedError> {
    let whole = seed("journal", "every-kind")?;
    let opened = seed("journal", "opened")?;
    let header = seed("journal", "new")?;
    let tail = &opened[header.len()..];
    let mend = Reader::named("journal").and_then(|reader| reader.mend).ok_or("journals are mended")?;
    // An entry of any bytes with the right digest, and a good one after it: damage in the middle, not a torn tail.
    let entry = |body: &[u8]| {
        let head = [&(body.len() as u32).to_le_bytes()[..], &[0; 16]].concat();
        mend(&[&header[..], &head, body, tail].concat())
    };
    let at = header.len();
    Ok(vec![
        ("another-format", b"\x89PNG\r\n\x1a\n and so on".to_vec()),
        ("another-version", with(&whole, 8, &[99])),
        ("entry-of-4-GiB", with(&whole, at, &u32::MAX.to_le_bytes())),
        ("entry-over-the-bound", with(&whole, at, &((16_u32 << 20) + 1).to_le_bytes())),
        ("digest-of-the-first-entry", with(&whole, at + 4, &[0x5a, 0x5a])),
        ("byte-of-the-first-entry", with(&whole, at + 20, &[0x7f])),
        ("entry-of-no-kind", entry(&[0x7f, 1, 2, 3])),
        ("entry-of-nothing", entry(&[])),
        ("list-of-2-pow-64", entry(&[&[2, 3, 1][..], &LARGEST].concat())),
        ("list-of-2-pow-40", entry(&[2, 3, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20])),
        ("number-in-11-bytes", entry(&[&[1][..], &TOO_LONG].concat())),
    ])
}

/// A safetensors file with another header.
fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

fn parts(file: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SeedError> {
    let length = u64::from_le_bytes(file.get(..8).ok_or("too short")?.try_into()?) as usize;
    Ok((file[8..8 + length].to_vec(), file[8 + length..].to_vec()))
}

fn weights() -> Result<Attacks, SeedError> {
    let good = seed("weights", "f32")?;
    let (header, data) = parts(&good)?;
    let text = String::from_utf8(header)?;
    let edit = |of: &str, others: &str| -> Result<Vec<u8>, SeedError> {
        Ok(safetensors(&instead(text.as_bytes(), of.as_bytes(), others.as_bytes())?, &data))
    };
    let nested = format!("{{\"a\":{}", "[".repeat(4000));
    Ok(vec![
        ("empty", Vec::new()),
        ("header-of-2-pow-63", with(&good, 0, &(1_u64 << 63).to_le_bytes())),
        ("header-of-90-MB", with(&good, 0, &90_000_000_u64.to_le_bytes())),
        ("header-of-nothing", vec![0; 8]),
        ("header-deep-nesting", safetensors(nested.as_bytes(), &data)),
        ("header-not-utf8", safetensors(b"{\"\xff\xfe\": 1}", &data)),
        ("header-of-noise", with(&good, 8, &[0xfe; 40])),
        ("cut-short", good[..good.len() - 5].to_vec()),
        ("too-long", [&good[..], &[0; 5]].concat()),
        ("offsets-overflow", edit("\"data_offsets\":[0,", "\"data_offsets\":[18446744073709551615,")?),
        ("offsets-backwards", edit("\"data_offsets\":[0,", "\"data_offsets\":[90000,")?),
        ("shape-overflow", edit("\"shape\":[4]", "\"shape\":[18446744073709551615,18446744073709551615]")?),
        ("shape-of-2-pow-63", edit("\"shape\":[4]", "\"shape\":[9223372036854775808]")?),
        ("shape-of-another-model", edit("\"shape\":[4]", "\"shape\":[2,2]")?),
        ("type-unknown", edit("\"F32\"", "\"F31\"")?),
        ("type-of-integers", edit("\"F32\"", "\"I32\"")?),
        ("tensor-missing", edit("\"model.norm.weight\"", "\"model.more.weight\"")?),
        ("tensor-twice", edit("\"model.norm.weight\"", "\"model.layers.0.input_layernorm.weight\"")?),
        ("value-nan", with(&good, good.len() - 4, &f32::NAN.to_le_bytes())),
        ("value-infinite", with(&good, good.len() - 4, &f32::INFINITY.to_le_bytes())),
    ])
}

fn stage_file() -> Result<Attacks, SeedError> {
    let good = seed("stage_file", "trained")?;
    let (header, data) = parts(&good)?;
    let edit = |of: &str, others: &str| -> Result<Vec<u8>, SeedError> {
        Ok(safetensors(&instead(&header, of.as_bytes(), others.as_bytes())?, &data))
    };
    Ok(vec![
        ("empty", Vec::new()),
        ("header-of-2-pow-63", with(&good, 0, &(1_u64 << 63).to_le_bytes())),
        ("cut-short", good[..good.len() - 5].to_vec()),
        ("value-flipped", with(&good, good.len() - 5, &[0x55])),
        ("metadata-missing", edit("__metadata__", "__metatada__")?),
        ("metadata-nested", edit("\"format\":\"skipstone-state-1\"", "\"format\":{\"a\":[]}")?),
        ("format-99", edit("skipstone-state-1", "skipstone-state-99")?),
        ("iteration-41", edit("\"iteration\":\"40\"", "\"iteration\":\"41\"")?),
        ("stage-2", edit("\"stage\":\"1\"", "\"stage\":\"2\"")?),
        ("another-model", edit("\"a-shape\"", "\"b-shape\"")?),
        ("step-negative", edit("\"optimizer_step\":\"41\"", "\"optimizer_step\":\"-1\"")?),
        (
            "step-of-2-pow-64",
            edit("\"optimizer_step\":\"41\"", "\"optimizer_step\":\"18446744073709551616\"")?,
        ),
        ("factor-not-hexadecimal", edit("\"learning_rate_factor\":\"", "\"learning_rate_factor\":\"é")?),
        ("factor-too-long", edit("\"learning_rate_factor\":\"", "\"learning_rate_factor\":\"ffff")?),
        ("tensor-missing", edit("\"second_moments\"", "\"third_moments\"")?),
    ])
}

fn tokens() -> Result<Attacks, SeedError> {
    let good = seed("tokens", "narrow")?;
    let mend = Reader::named("tokens").and_then(|reader| reader.mend).ok_or("token files are mended")?;
    let large = |at: usize, value: u64| mend(&with(&good, at, &value.to_le_bytes()));
    Ok(vec![
        ("empty", Vec::new()),
        ("ends-within-its-header", good[..79].to_vec()),
        ("another-format", with(&good, 0, b"NOTTOKEN")),
        ("version-2", mend(&with(&good, 8, &[2]))),
        ("width-3", mend(&with(&good, 12, &[3]))),
        ("width-4-for-a-small-vocabulary", mend(&with(&good, 12, &[4]))),
        ("vocabulary-of-2-pow-63", large(16, 1 << 63)),
        ("train-of-2-pow-63", large(24, 1 << 63)),
        ("train-of-2-pow-64", large(24, u64::MAX)),
        (
            "counts-that-wrap-around",
            mend(&with(&good, 24, &[(1_u64 << 63) + 40, 1 << 63].map(u64::to_le_bytes).concat())),
        ),
        ("token-outside-the-vocabulary", mend(&with(&good, 80, &[0xff, 0xff]))),
        ("token-flipped", with(&good, 90, &[0x55])),
        ("cut-short", good[..good.len() - 1].to_vec()),
        ("too-long", [&good[..], &[0; 2]].concat()),
    ])
}
