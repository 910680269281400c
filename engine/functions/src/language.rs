//! What a language has to do.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;

use crate::error::FunctionError;

/// Tells the time.
pub(crate) type Now = Rc<dyn Fn() -> Instant>;

/// Runs one function, within [`crate::limits`]. After an error it is not used again.
pub(crate) trait Machine {
    /// Calls the function with wire bytes of its argument types; None is null.
    ///
    /// # Errors
    /// See [`FunctionError`].
    fn call(
        &mut self,
        function: &FunctionDefinition,
        arguments: &[Option<Bytes>],
    ) -> Result<Option<Bytes>, FunctionError>;

    /// May be used for the next call of the function: it is not large (any more).
    fn can_be_kept(&mut self, function: &FunctionDefinition) -> bool;
}
