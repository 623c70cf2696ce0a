//! Incidents: several events that people see as one, told in one growing sentence.

use crate::words;
use skipstone_types::{NodeId, StageId};
use std::collections::VecDeque;

/// Whom an incident happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Node(NodeId, Option<StageId>),
    Stage(StageId),
    Coordinator,
    /// Something that is over as soon as it is told.
    Run,
}

/// An incident, told in clauses: `stage 3 lost both replicas → routed around → rebuilt from stages 2
/// and 4 in 0.4 s`.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// Tells it from all other stories of the run; later ones have higher numbers.
    pub number: u64,
    /// When it began, in milliseconds of the run.
    pub at_ms: u64,
    pub(crate) subject: Subject,
    clauses: Vec<String>,
    /// What is going on now; replaced by the next clause.
    pending: Option<String>,
    /// Whether nothing more can follow.
    pub closed: bool,
}

/// The most clauses of a story; a stage that is lost again and again begins a new one.
const CLAUSES_MAX: usize = 8;

impl Story {
    /// The story so far.
    pub fn text(&self) -> String {
        let clauses: Vec<&str> = self.clauses.iter().chain(&self.pending).map(String::as_str).collect();
        clauses.join(" → ")
    }

    /// The story so far, as it is told at `now_ms`: with the time of its beginning where that was earlier.
    pub(crate) fn text_at(&self, now_ms: u64) -> String {
        if now_ms / 1000 == self.at_ms / 1000 || self.subject == Subject::Run {
            return self.text();
        }
        let text = self.text();
        let first = self.clauses.first().map_or(0, String::len);
        let (first, rest) = text.split_at(first);
        format!("{first} at {}{rest}", words::clock(self.at_ms / 1000))
    }

    pub(crate) fn says(&self, clause: &str) -> bool {
        self.clauses.iter().any(|said| said == clause)
    }
}

/// The last incidents. A change bumps the story to the end.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stories {
    stories: VecDeque<Story>,
    /// Stories told so far.
    told: u64,
}

impl Stories {
    /// The most stories that are remembered.
    pub(crate) const MAX: usize = 64;

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Story> {
        self.stories.iter()
    }

    fn last(&self, subject: Subject) -> Option<&Story> {
        self.stories.iter().rev().find(|story| story.subject == subject)
    }

    /// The open story of a subject.
    pub(crate) fn open(&self, subject: Subject) -> Option<&Story> {
        self.last(subject).filter(|story| !story.closed)
    }

    /// The oldest open story of a node of this stage.
    pub(crate) fn open_node_of(&self, stage: StageId) -> Option<Subject> {
        self.stories
            .iter()
            .filter(|story| !story.closed)
            .map(|story| story.subject)
            .find(|subject| matches!(subject, Subject::Node(_, Some(of)) if *of == stage))
    }

    /// Begins a story.
    pub(crate) fn tell(&mut self, subject: Subject, at_ms: u64, clause: String) {
        let (closed, number) = (subject == Subject::Run, self.told);
        self.told += 1;
        self.stories.push_back(Story {
            number,
            at_ms,
            subject,
            clauses: vec![clause],
            pending: None,
            closed,
        });
        if self.stories.len() > Self::MAX {
            // What goes on outlasts what is over.
            let over = self.stories.iter().position(|story| story.closed).unwrap_or(0);
            self.stories.remove(over);
        }
    }

    /// Goes on with an open story; says whether there was one.
    pub(crate) fn add(&mut self, subject: Subject, clause: String) -> bool {
        self.change(subject, |story| {
            story.pending = None;
            story.clauses.push(clause);
            story.closed |= story.clauses.len() >= CLAUSES_MAX;
        })
    }

    /// Says what is going on, until the next clause.
    pub(crate) fn pending(&mut self, subject: Subject, clause: String) {
        self.change(subject, |story| story.pending = Some(clause));
    }

    pub(crate) fn close(&mut self, subject: Subject) {
        if let Some(story) = self.stories.iter_mut().rev().find(|story| story.subject == subject) {
            story.closed = true;
            story.pending = None;
        }
    }

    /// Takes the open stories of a stage's nodes away: the stage's own story tells them. Gives their nodes.
    pub(crate) fn absorb_nodes_of(&mut self, stage: StageId) -> Vec<NodeId> {
        let mut nodes = Vec::new();
        self.stories.retain(|story| match story.subject {
            Subject::Node(node, Some(of)) if of == stage && !story.closed => {
                nodes.push(node);
                false
            }
            _ => true,
        });
        nodes
    }

    fn change(&mut self, subject: Subject, change: impl FnOnce(&mut Story)) -> bool {
        let Some(index) = self.stories.iter().rposition(|story| story.subject == subject && !story.closed)
        else {
            return false;
        };
        if let Some(mut story) = self.stories.remove(index) {
            change(&mut story);
            self.stories.push_back(story);
        }
        true
    }
}

/// `both replicas`, `its only replica`, `all 3 replicas`.
pub(crate) fn all_replicas(replicas: usize) -> String {
    match replicas {
        0 | 1 => "its only replica".to_owned(),
        2 => "both replicas".to_owned(),
        n => format!("all {n} replicas"),
    }
}

/// `node 7 (stage 2)`.
pub(crate) fn node_of(node: NodeId, stage: Option<StageId>) -> String {
    match stage {
        Some(stage) => format!("{node} ({})", words::stage(stage)),
        None => node.to_string(),
    }
}
