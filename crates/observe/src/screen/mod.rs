//! Progress on stderr.

mod plain;
mod terminal;
mod text;

pub use plain::PlainView;
pub use terminal::TerminalView;
pub use text::{Line, Style};

use crate::RunState;

/// todo
pub fn frame(_state: &RunState, _width: usize, _height: usize) -> Vec<Line> {
    Vec::new()
}
