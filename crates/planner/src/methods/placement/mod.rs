//! Placement of nodes on stages by a genetic search (DT-FM, arXiv 2206.01288, as SkipPipe's code uses it).

mod cycles;
mod genetic;
mod matching;
mod score;
mod tour;

pub(super) use genetic::genetic;
pub(super) use matching::{Matching, match_rows};

/// Who serves which stage.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    /// Nodes of each stage, origin first.
    pub(super) stages: Vec<Vec<u32>>,
    /// Other good ones that the search met, best score first.
    pub(super) others: Vec<Vec<Vec<u32>>>,
    /// How it was found.
    pub(super) notes: Vec<String>,
}

impl Placement {
    /// A placement that someone else has made.
    pub(super) fn given(stages: Vec<Vec<u32>>) -> Self {
        Self { stages, others: Vec::new(), notes: vec!["placement: as given".to_owned()] }
    }

    /// The stage of each of `nodes` nodes.
    pub(super) fn stage_of(&self, nodes: usize) -> Vec<u16> {
        let mut stage_of = vec![0; nodes];
        for (stage, members) in self.stages.iter().enumerate() {
            for node in members {
                if let Some(of) = stage_of.get_mut(*node as usize) {
                    *of = stage as u16;
                }
            }
        }
        stage_of
    }
}
