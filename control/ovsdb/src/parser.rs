//! Takes a JSON object apart member by member and complains about the first thing wrong, as ovsdb-server does.

use crate::error::Error;
use crate::value::{integer, is_id};
use serde_json::{Map, Value};

pub(crate) struct Parser<'a> {
    what: String,
    json: &'a Value,
    used: Vec<&'static str>,
    error: Option<Error>,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(json: &'a Value, what: impl Into<String>) -> Parser<'a> {
        let mut parser = Parser { what: what.into(), json, used: Vec::new(), error: None };
        if !json.is_object() {
            parser.fail("Object expected.");
        }
        parser
    }

    pub(crate) fn json(&self) -> &'a Value {
        self.json
    }

    pub(crate) fn fail(&mut self, message: &str) {
        if self.error.is_none() {
            let details = format!("Parsing {} failed: {message}", self.what);
            let error = Error::syntax(self.json, details);
            // What is no object is not quoted.
            self.error = Some(if self.json.is_object() { error } else { Error { syntax: None, ..error } });
        }
    }

    fn member<T>(
        &mut self,
        name: &'static str,
        required: bool,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let object = self.json.as_object()?;
        let Some(json) = object.get(name) else {
            if required {
                self.fail(&format!("Required '{name}' member is missing."));
            }
            return None;
        };
        let value = read(json);
        match value {
            Some(_) => self.used.push(name),
            None => self.fail(&format!("Type mismatch for member '{name}'.")),
        }
        value
    }

    pub(crate) fn id(&mut self, name: &'static str) -> Option<&'a str> {
        self.member(name, true, |json| json.as_str().filter(|text| is_id(text)))
    }

    pub(crate) fn optional_id(&mut self, name: &'static str) -> Option<&'a str> {
        self.member(name, false, |json| json.as_str().filter(|text| is_id(text)))
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Option<&'a str> {
        self.member(name, true, Value::as_str)
    }

    pub(crate) fn optional_string(&mut self, name: &'static str) -> Option<&'a str> {
        self.member(name, false, Value::as_str)
    }

    pub(crate) fn array(&mut self, name: &'static str) -> Option<&'a [Value]> {
        self.member(name, true, |json| json.as_array().map(Vec::as_slice))
    }

    pub(crate) fn optional_array(&mut self, name: &'static str) -> Option<&'a [Value]> {
        self.member(name, false, |json| json.as_array().map(Vec::as_slice))
    }

    pub(crate) fn object(&mut self, name: &'static str) -> Option<&'a Map<String, Value>> {
        self.member(name, true, Value::as_object)
    }

    pub(crate) fn optional_object(&mut self, name: &'static str) -> Option<&'a Value> {
        self.member(name, false, |json| json.is_object().then_some(json))
    }

    pub(crate) fn optional_bool(&mut self, name: &'static str) -> Option<bool> {
        self.member(name, false, Value::as_bool)
    }

    pub(crate) fn required_bool(&mut self, name: &'static str) -> Option<bool> {
        self.member(name, true, Value::as_bool)
    }

    pub(crate) fn optional_integer(&mut self, name: &'static str) -> Option<i64> {
        self.member(name, false, integer)
    }

    /// The first complaint so far, if any.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// The first complaint, one about members that nobody asked for included.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let names = self.json.as_object().into_iter().flat_map(Map::keys);
        let unused: Vec<&String> = names.filter(|name| !self.used.contains(&name.as_str())).collect();
        match unused.as_slice() {
            [] => {}
            [name] => self.fail(&format!("Member '{name}' is present but not allowed here.")),
            [name, others @ ..] => {
                let n = others.len();
                let s = if n > 1 { "s" } else { "" };
                self.fail(&format!(
                    "Member '{name}' and {n} other member{s} are present but not allowed here."
                ));
            }
        }
        self.check()
    }
}
