//! Properties as written, read by type.

use super::number::parse_double;
use crate::CqlError;
use crate::ast::{Properties, PropertyValue};

/// The entries of a map-valued property.
pub(crate) type Entries = [(Box<str>, Box<str>)];

/// Reads properties whose names are all known.
pub(crate) struct PropertyReader<'p> {
    pub(super) properties: &'p Properties,
}

impl<'p> PropertyReader<'p> {
    /// # Errors
    /// `Syntax` when a property has a name that is not `known`.
    pub(crate) fn new(properties: &'p Properties, known: &[&str]) -> Result<Self, CqlError> {
        for property in &properties.0 {
            if !known.contains(&&*property.name) {
                return Err(CqlError::syntax(format!("Unknown property '{}'", property.name)));
            }
        }
        Ok(Self { properties })
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'p str>, CqlError> {
        match self.properties.get(name) {
            None => Ok(None),
            Some(PropertyValue::Text(text)) => Ok(Some(text)),
            Some(PropertyValue::Map(_)) => Err(CqlError::syntax(format!(
                "Invalid value for property '{name}'. It should be a string"
            ))),
        }
    }

    pub(crate) fn map(&self, name: &str) -> Result<Option<&'p Entries>, CqlError> {
        match self.properties.get(name) {
            None => Ok(None),
            Some(PropertyValue::Map(entries)) => Ok(Some(entries)),
            Some(PropertyValue::Text(_)) => Err(CqlError::syntax(format!(
                "Invalid value for property '{name}'. It should be a map."
            ))),
        }
    }

    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, CqlError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" => Ok(Some(true)),
            "0" | "false" | "no" => Ok(Some(false)),
            _ => Err(CqlError::syntax(format!(
                "Invalid boolean value {text} for '{name}'. Positive values can be '1', 'true' or 'yes'. Negative \
                 values can be '0', 'false' or 'no'."
            ))),
        }
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i32>, CqlError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let number = text
            .parse()
            .map_err(|_| CqlError::syntax(format!("Invalid integer value {text} for '{name}'")))?;
        Ok(Some(number))
    }

    pub(crate) fn double(&self, name: &str) -> Result<Option<f64>, CqlError> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        match parse_double(text) {
            Some(number) => Ok(Some(number)),
            None => Err(CqlError::syntax(format!(
                "Invalid double value {text} for '{name}'"
            ))),
        }
    }
}
