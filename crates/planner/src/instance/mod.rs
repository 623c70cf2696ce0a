//! The instance: format, reading, and every check that needs no search.

mod check;
mod error;
mod format;
mod link;

pub use error::InstanceError;
pub use format::{EdgeSwaps, INSTANCE_SCHEMA, Instance, InstanceNode, Quota, SwapRules};
pub use link::{BackLink, Link, PACKET_BYTES, RegionLink, Regions, Way};

impl Instance {
    /// Reads and checks an instance.
    ///
    /// # Errors
    /// [`InstanceError::Syntax`] where the text is not JSON of this shape (NaN and infinities are none), else
    /// what [`Instance::check`] finds.
    pub fn from_json(text: &str) -> Result<Self, InstanceError> {
        let instance: Self = serde_json::from_str(text).map_err(|error| InstanceError::Syntax {
            field: crate::json::field_before(text, error.line(), error.column()),
            reason: crate::json::reason(&error),
            line: error.line(),
            column: error.column(),
        })?;
        instance.check()?;
        Ok(instance)
    }
}
