//! The protocol: a worker and a coordinator as pure state machines.
//!
//! Both take inputs with a time and answer with commands, in order. They open no socket, read no clock, start no
//! thread and draw no random number; three drivers (`skipstone-worlds`) run the same code in virtual and in real
//! time.
//!
//! An iteration: the coordinator asks for a plan, tells every node its [`Duty`]s ([`ToWorker::Begin`]), and
//! boundary tensors go from node to node ([`ToPeer::Boundary`]). When all shares of a stage are complete it seals
//! them ([`ToWorker::Seal`]), replicas reduce and report the digest, and when every stage agrees the record is
//! journalled ([`Entry::Committed`]) and everyone steps ([`ToWorker::Commit`]). See `ARCHITECTURE.md`.

mod command;
mod coordinator;
mod detector;
mod domain;
#[cfg(test)]
mod fixtures;
mod inputs;
mod journal;
mod message;
mod record;
mod statistics;
mod task;
mod wire;
mod worker;

pub use command::{CoordinatorCommand, CoordinatorInput, End, WorkerCommand, WorkerInput};
pub use coordinator::{Coordinator, Owner, Wait, condense};
pub use detector::{PhiAccrual, RunningClock, Suspicion};
pub use domain::FailureDomain;
pub use inputs::{InputsError, Opening, TimedInputs, decode_inputs, encode_input, encode_opening};
pub use journal::{
    Beginning, Decoded, Entry, JOURNAL_HEADER, JournalError, Rebuild, StageCopy, decode_entry,
    decode_journal, encode_entry,
};
pub use message::{
    COPIES_HELD_MAX, Direction, Duty, Holding, KeptCopy, KeptTensor, LossShare, Method, NAMES_MAX, ReduceId,
    ShareDigests, Spent, ToCoordinator, ToPeer, ToWorker, TransferId,
};
pub use record::{Addition, CommitRecord, LossAdded, SavedStage, SavedState, Share, StageRecord};
pub use task::{Handle, Outcome, Passed, Task, TaskId};
pub use wire::{Envelope, MESSAGE_BYTES_MAX, Message, WIRE_VERSION, WireError, decode, encode};
pub use worker::{Queue, Worker};
