//! todo
use crate::RunState;
/// todo
pub fn report(_state: &RunState) -> String {
    String::new()
}
