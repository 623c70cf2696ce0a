//! The summary as people read it.
