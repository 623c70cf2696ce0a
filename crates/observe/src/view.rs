//! How progress is shown.

use crate::RunState;
use crate::screen::{PlainView, TerminalView};
use std::io::{self, IsTerminal, Stderr, Write};

/// How progress is shown; always on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A live view, redrawn in place.
    Terminal,
    /// Plain lines.
    Plain,
    /// Nothing but warnings.
    Quiet,
}

impl Progress {
    /// The live view on a terminal that can show it, plain lines elsewhere or with `--plain`.
    pub fn choose(plain: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if plain || dumb || !io::stderr().is_terminal() { Self::Plain } else { Self::Terminal }
    }
}

#[derive(Debug)]
pub(crate) enum View {
    Terminal(TerminalView<Stderr>),
    Plain(PlainView<Stderr>),
    Quiet,
}

impl View {
    /// One that shows what comes after `state`.
    pub(crate) fn new(progress: Progress, state: &RunState) -> Self {
        match progress {
            Progress::Terminal => Self::Terminal(TerminalView::stderr()),
            Progress::Plain => {
                let mut view = PlainView::new(io::stderr());
                view.skip(state);
                Self::Plain(view)
            }
            Progress::Quiet => Self::Quiet,
        }
    }

    /// The run stands so now.
    pub(crate) fn tick(&mut self, state: &RunState) {
        match self {
            Self::Terminal(view) => view.tick(state),
            Self::Plain(view) => view.tick(state),
            Self::Quiet => {}
        }
    }

    /// Says something without disturbing what is shown.
    pub(crate) fn note(&mut self, text: &str, state: &RunState) {
        match self {
            Self::Terminal(view) => view.note(text, state),
            Self::Plain(view) => view.note(text),
            Self::Quiet => drop(writeln!(io::stderr(), "{text}")),
        }
    }

    /// Says something that has just happened and that no event tells.
    pub(crate) fn remark(&mut self, text: &str, state: &RunState) {
        match self {
            Self::Terminal(view) => view.note(text, state),
            Self::Plain(view) => view.remark(text, state),
            Self::Quiet => {}
        }
    }

    /// Has plain lines say which nodes there are, which the live view shows anyway.
    pub(crate) fn name_nodes(&mut self) {
        if let Self::Plain(view) = self {
            view.name_nodes();
        }
    }

    /// The last of it.
    pub(crate) fn close(&mut self, state: &RunState) {
        match std::mem::replace(self, Self::Quiet) {
            Self::Terminal(mut view) => view.close(state),
            Self::Plain(mut view) => view.close(state),
            Self::Quiet => {}
        }
    }
}
