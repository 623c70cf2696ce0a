//! Boundary tensors in fewer bytes, as they come from a peer (`skipstone-worlds`).

use crate::{Broken, Reader, Seed, SeedError, Verdict, lost, refused, same, within};
use skipstone_net::Payload;
use skipstone_worlds::live::store::TensorStore;
use std::sync::Arc;

/// Four bytes a number, of which each takes at least one, and a store.
fn memory_max(input: usize) -> usize {
    (64 << 10) + 5 * input
}

pub(crate) const READER: Reader = Reader {
    name: "boundary",
    what: "activations and gradients in bf16 or int8",
    text: false,
    memory_max,
    read,
    mend: None,
    seeds,
};

fn received(bytes: &[u8]) -> Option<Arc<Vec<f32>>> {
    let mut store = TensorStore::default();
    let handle = store.receive(Payload::Bytes(bytes.to_vec().into()))?;
    store.values(handle)
}

fn read(bytes: &[u8]) -> Result<Verdict, Broken> {
    let Some(values) = within(memory_max(bytes.len()), bytes, || received(bytes))? else {
        return refused("not a packed tensor");
    };
    // Whatever numbers came: sent on, as they are or packed again, they are the same.
    let mut store = TensorStore::default();
    let handle = store.receive(Payload::F32(values.clone())).ok_or_else(|| lost("not received"))?;
    let again = match store.payload(handle) {
        Some(Payload::F32(again)) => again,
        Some(Payload::Bytes(packed)) => received(&packed).ok_or_else(|| lost("not unpacked"))?,
        _ => return Err(lost("not sent")),
    };
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    same(&bits(&values), &bits(&again))
}

fn seeds() -> Result<Vec<Seed>, SeedError> {
    let packed = |name: &str, values: Vec<f32>| {
        let mut store = TensorStore::default();
        let handle = store.receive(Payload::F32(Arc::new(values))).ok_or("not received")?;
        match store.payload(handle) {
            Some(Payload::Bytes(bytes)) => Ok((name.to_owned(), bytes.to_vec())),
            other => Err(SeedError::from(format!("{name} is not packed: {other:?}"))),
        }
    };
    Ok(vec![
        packed("int8", (0..150).map(|i| f32::from(i as i8) * 0.25).collect())?,
        packed("bf16", (0..70).map(|i| f32::from_bits(0x3f80_0000 + (i << 16)) * 1e6).map(whole).collect())?,
        packed("zeros", vec![0.0; 64])?,
    ])
}

/// Without what bf16 can't hold.
fn whole(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0xffff_0000)
}
