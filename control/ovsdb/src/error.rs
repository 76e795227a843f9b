//! The error that every part of the engine gives, in the form it has on the wire (RFC 7047 section 3.1).

use serde_json::{Value, json};
use std::fmt;

/// What kind of thing went wrong: the `error` member that clients compare against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// A message or value does not have the form that RFC 7047 or the schema asks for.
    Syntax,
    UnknownDatabase,
    UnknownTable,
    UnknownColumn,
    UnknownFunction,
    UnknownMutator,
    ConstraintViolation,
    ReferentialIntegrityViolation,
    /// A number left its type's range.
    Range,
    /// Division by zero and the like.
    Domain,
    DuplicateUuidName,
    DuplicateUuid,
    TimedOut,
    NotOwner,
    Aborted,
    Canceled,
    NotSupported,
    NotAllowed,
    ResourcesExhausted,
    /// Anything that RFC 7047 has no name for.
    Other,
    /// The log file could not be written; nothing was changed.
    Io,
}

impl Tag {
    pub fn as_str(self) -> &'static str {
        match self {
            Tag::Syntax => "syntax error",
            Tag::UnknownDatabase => "unknown database",
            Tag::UnknownTable => "unknown table",
            Tag::UnknownColumn => "unknown column",
            Tag::UnknownFunction => "unknown function",
            Tag::UnknownMutator => "unknown mutator",
            Tag::ConstraintViolation => "constraint violation",
            Tag::ReferentialIntegrityViolation => "referential integrity violation",
            Tag::Range => "range error",
            Tag::Domain => "domain error",
            Tag::DuplicateUuidName => "duplicate uuid-name",
            Tag::DuplicateUuid => "duplicate uuid",
            Tag::TimedOut => "timed out",
            Tag::NotOwner => "not owner",
            Tag::Aborted => "aborted",
            Tag::Canceled => "canceled",
            Tag::NotSupported => "not supported",
            Tag::NotAllowed => "not allowed",
            Tag::ResourcesExhausted => "resources exhausted",
            Tag::Other => "ovsdb error",
            Tag::Io => "I/O error",
        }
    }
}

/// An error with the words that ovsdb-server uses for it, since clients and people search for those.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    pub tag: Tag,
    pub details: Option<String>,
    /// The JSON text that was at fault.
    pub syntax: Option<String>,
}

impl Error {
    pub fn new(tag: Tag, details: impl Into<String>) -> Error {
        Error { tag, details: Some(details.into()), syntax: None }
    }

    /// A complaint about the form of `json`, which is quoted in the error.
    pub fn syntax(json: &Value, details: impl Into<String>) -> Error {
        Error::new(Tag::Syntax, details).at(json)
    }

    pub fn constraint(details: impl Into<String>) -> Error {
        Error::new(Tag::ConstraintViolation, details)
    }

    /// Quotes `json` as the text at fault.
    #[must_use]
    pub fn at(mut self, json: &Value) -> Error {
        self.syntax = Some(json.to_string());
        self
    }

    pub fn to_json(&self) -> Value {
        let mut object = json!({ "error": self.tag.as_str() });
        if let Some(details) = &self.details {
            object["details"] = json!(details);
        }
        if let Some(syntax) = &self.syntax {
            object["syntax"] = json!(syntax);
        }
        object
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(syntax) = &self.syntax {
            write!(f, "syntax \"{syntax}\": ")?;
        }
        f.write_str(self.tag.as_str())?;
        match &self.details {
            Some(details) => write!(f, ": {details}"),
            None => Ok(()),
        }
    }
}
