//! Progress on stderr.

mod chart;
mod frame;
mod plain;
mod table;
mod terminal;
mod text;

pub use frame::frame;
pub use plain::PlainView;
pub use terminal::TerminalView;
pub use text::{Line, Style};
