//! What a run shows of itself: the event log and everything that is made from it.
//!
//! The parent process of a run is the only user of [`Observer`]: it hands every [`Event`] over, stamped with the
//! run's time, and the observer writes the log ([`EventLog`]), the TensorBoard scalars ([`Scalars`]) and the
//! progress on stderr, and folds the events into a [`RunState`]. From that state come the [`Summary`] that ends a
//! run, `report.html` ([`report`]) and the account of an iteration ([`explain`]). The same fold over a log that
//! was read back ([`read_events`]) gives the same answers, so `skipstone show` needs nothing but the folder.
//!
//! Plans have pictures too: a lane for every node ([`gantt`]), and stages over regions ([`map`]).
//!
//! Words for events live in one place, the incidents ([`Story`]); where the node-seconds went is decided in one place,
//! [`NodeTime`].
//!
//! [`Event`]: skipstone_types::Event

// Text is made for people, a few times a second: `format!` reads best.
#![allow(clippy::format_push_string, clippy::format_collect)]

mod account;
mod append;
mod cost;
mod curves;
mod explain;
mod fold;
mod history;
mod info;
mod log;
mod observer;
mod plan_picture;
mod read;
mod report;
mod screen;
mod slow;
mod spectator;
mod stage;
mod state;
mod story;
mod summary;
mod summary_text;
mod tell;
mod tensorboard;
mod timeline;
mod view;
mod words;

pub use account::{Badput, NodeTime};
pub use cost::{Cost, TrafficCost};
pub use curves::{Curve, CurveChart, CurvePoint, CurvesPage, CurvesTable, PictureError, curves_page};
pub use explain::explain;
pub use history::{History, Point};
pub use info::RunInfo;
pub use log::EventLog;
pub use observer::{Observer, Outcome};
pub use plan_picture::{PlannedIteration, gantt, map};
pub use read::{ReadError, read_events};
pub use report::{report, write_report};
pub use screen::{Line, PlainView, Style, TerminalView, frame};
pub use spectator::{Spectator, SpectatorError};
pub use stage::{NodePhase, StageState};
pub use state::{CoordinatorRestart, Recovery, RunState};
pub use story::Story;
pub use summary::{PaceTruth, Summary};
pub use summary_text::stdout_width;
pub use tensorboard::Scalars;
pub use timeline::{Lane, Mark, Span, SpanKind, Timeline};
pub use view::Progress;
