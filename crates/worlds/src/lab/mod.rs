//! The laboratory: recovery strategies side by side, on equal failures, with real gradients in virtual time.
//!
//! An [`Experiment`] is a run, and what is varied of it: strategies, rates of failure, skip ratios, paths, seeds. Each combination is
//! an [`Arm`]. An arm is trained by the state machines that train live ([`crate::cost`]): every tensor is computed, every
//! failure goes through detection, rebuilding and re-entry, and only time is modelled. Arms of the same seed lose the same
//! stages at the same iterations. Results are cached by the content of the arm, so that an experiment can be broken off, gone on
//! with, and changed; the same arm gives the same result on any number of threads.

mod arm;
mod bench;
mod data;
mod error;
mod experiment;
mod failures;
mod figures;
mod look;
mod page;
mod paths;
mod result;
mod results_file;
mod runner;
mod signals;
mod text;

pub use arm::Arm;
pub use bench::{BenchLab, bench_lab};
pub use error::LabError;
pub use experiment::Experiment;
pub use failures::{Failures, LossRate, Lost};
pub use figures::{CurvePoint, Figure, Group, LeftOut, figures};
pub use page::write_pages;
pub use result::{ArmResult, LostStage, Point};
pub use results_file::ResultsFile;
pub use runner::{Progress, run_experiment};
pub use signals::stop_on_interrupt;
pub use text::markdown;

#[cfg(test)]
mod tests;
