//! What a client may ask for: JSON-RPC 1.0 messages and the answers to them (RFC 7047 section 4, ovsdb-server(7)).

use crate::error::{Error, Tag};
use crate::monitor::{Monitor, Version};
use crate::server::{MAX_PER_SESSION, Server, Session, SessionError, SessionId, Which};
use crate::value::{is_id, parse_uuid_text};
use serde_json::{Value, json};
use std::time::Instant;

/// A request's result, or what goes into the reply's `error`.
type Answer = Result<Value, Value>;

impl Server {
    pub(crate) fn message(
        &mut self,
        session: SessionId,
        message: Value,
        now: Instant,
    ) -> Result<(), SessionError> {
        let Value::Object(mut message) = message else {
            return Err(SessionError::Message("it is not an object"));
        };
        let method = match message.remove("method") {
            Some(Value::String(method)) => method,
            Some(_) => return Err(SessionError::Message("\"method\" is not a string")),
            // A reply to nothing: this server asks its clients for nothing.
            None if message.contains_key("id") => return Ok(()),
            None => return Err(SessionError::Message("it has no \"method\"")),
        };
        let Some(Value::Array(params)) = message.remove("params") else {
            return Err(SessionError::Message("\"params\" is not an array"));
        };
        match message.remove("id").unwrap_or_default() {
            Value::Null => self.notification(session, &method, &params),
            id => self.request(session, &method, params, id, now),
        }
        Ok(())
    }

    fn notification(&mut self, session: SessionId, method: &str, params: &[Value]) {
        if let ("cancel", [id]) = (method, params) {
            self.cancel(session, id);
        }
    }

    fn request(&mut self, session: SessionId, method: &str, params: Vec<Value>, id: Value, now: Instant) {
        let answer = match method {
            "transact" => match self.database_of(method, &params) {
                Ok(db) => return self.start_transaction(session, id, db, params, now),
                Err(error) => Err(error),
            },
            "monitor" => self.monitor(session, method, &params, Version::V1),
            "monitor_cond" => self.monitor(session, method, &params, Version::V2),
            "monitor_cond_since" => self.monitor(session, method, &params, Version::V3),
            "monitor_cond_change" => self.monitor_cond_change(session, &params),
            "monitor_cancel" => self.monitor_cancel(session, &params),
            "get_schema" => {
                self.database_of(method, &params).map(|which| self.database(which).schema().to_json())
            }
            "list_dbs" => Ok(json!([self.db.schema().name, self.catalogue.schema().name])),
            "get_server_id" => Ok(json!(self.id.to_string())),
            "lock" | "steal" => self.lock(session, method, &params),
            "unlock" => self.unlock(session, &params),
            "set_db_change_aware" => match params.as_slice() {
                // Our databases never change, but the answer says so to nobody.
                [Value::Bool(_)] => Ok(json!({})),
                _ => Err(Error::syntax(
                    &json!(params),
                    "set_db_change_aware: true or false parameter expected",
                )
                .to_json()),
            },
            "echo" => Ok(Value::Array(params)),
            _ => Err(json!("unknown method")),
        };
        // ovsdb-server leaves "result" out of an error's reply.
        self.send(
            session,
            match answer {
                Ok(result) => json!({ "id": id, "result": result, "error": null }),
                Err(error) => json!({ "id": id, "error": error }),
            },
        );
    }

    /// The database that the first parameter names.
    fn database_of(&self, method: &str, params: &[Value]) -> Result<Which, Value> {
        let Some(name) = params.first().and_then(Value::as_str) else {
            let details = format!("{method} request params must begin with <db-name>");
            return Err(Error::syntax(&json!(params), details).to_json());
        };
        if name == self.db.schema().name {
            Ok(Which::OpenVSwitch)
        } else if name == self.catalogue.schema().name {
            Ok(Which::Catalogue)
        } else {
            let details = format!("{method} request specifies unknown database {name}");
            Err(Error::new(Tag::UnknownDatabase, details).at(&json!(params)).to_json())
        }
    }

    fn session(&mut self, session: SessionId) -> Result<&mut Session, Value> {
        self.sessions.get_mut(&session).ok_or_else(|| json!("no such session"))
    }

    fn monitor(&mut self, session: SessionId, method: &str, params: &[Value], version: Version) -> Answer {
        let which = self.database_of(method, params)?;
        let (id, requests, last) = match (params, version) {
            ([_, id, requests], Version::V1 | Version::V2) => (id, requests, None),
            ([_, id, requests, last], Version::V3) => (id, requests, Some(last)),
            _ => return Err(Error::syntax(&json!(params), "invalid parameters").to_json()),
        };
        if !requests.is_object() {
            return Err(Error::syntax(requests, "monitor-requests must be object").to_json());
        }
        let key = id.to_string();
        let monitors = &self.session(session)?.monitors;
        if monitors.contains_key(&key) {
            return Err(Error::syntax(id, "duplicate monitor ID").to_json());
        }
        if monitors.len() >= MAX_PER_SESSION {
            return Err(Error::new(Tag::ResourcesExhausted, "too many monitors").to_json());
        }
        if let Some(last) = last {
            let text = last.as_str();
            let text = text.ok_or_else(|| Error::syntax(last, "last-txn-id must be string").to_json())?;
            if parse_uuid_text(text).is_none() {
                return Err(Error::syntax(last, "last-txn-id must be UUID format.").to_json());
            }
        }
        let db = self.database(which);
        let monitor = Monitor::from_json(db, requests, version).map_err(|error| error.to_json())?;
        let initial = monitor.initial(db);
        self.session(session)?.monitors.insert(key, (id.clone(), which, monitor));
        Ok(initial)
    }

    fn monitor_cond_change(&mut self, session: SessionId, params: &[Value]) -> Answer {
        let [old_id, new_id, requests] = params else {
            return Err(Error::syntax(&json!(params), "invalid parameters").to_json());
        };
        let old_key = old_id.to_string();
        let found = self.session(session)?.monitors.remove(&old_key);
        let Some((_, which, mut monitor)) = found else {
            return Err(Error::syntax(old_id, "unknown monitor session").to_json());
        };
        let changed = match (requests.is_object(), monitor.version) {
            (_, Version::V1) => Err(Error::syntax(old_id, "unknown monitor session")),
            (false, _) => Err(Error::new(Tag::Syntax, "monitor-cond-change-requests must be object")),
            (true, _) => monitor.change_conditions(self.database(which), requests),
        };
        let monitors = &mut self.session(session)?.monitors;
        let new_key = new_id.to_string();
        let taken = new_key != old_key && monitors.contains_key(&new_key);
        match changed {
            Ok(updates) if !taken => {
                let notification = updates.map(|updates| monitor.notification(new_id, updates));
                monitors.insert(new_key, (new_id.clone(), which, monitor));
                if let Some(notification) = notification {
                    self.send(session, notification);
                }
                Ok(json!({}))
            }
            changed => {
                monitors.insert(old_key, (old_id.clone(), which, monitor));
                let duplicate = Error::syntax(new_id, "duplicate monitor ID");
                Err(changed.err().unwrap_or(duplicate).to_json())
            }
        }
    }

    fn monitor_cancel(&mut self, session: SessionId, params: &[Value]) -> Answer {
        let [id] = params else { return Err(json!("invalid parameters")) };
        match self.session(session)?.monitors.remove(&id.to_string()) {
            Some(_) => Ok(json!({})),
            None => Err(json!("unknown monitor")),
        }
    }

    fn lock(&mut self, session: SessionId, method: &str, params: &[Value]) -> Answer {
        let name = lock_name(method, params)?;
        let own = &mut self.session(session)?.locks;
        if own.contains(name) {
            let details = format!("must issue \"unlock\" before new \"{method}\"");
            return Err(Error::syntax(&json!(params), details).to_json());
        }
        if own.len() >= MAX_PER_SESSION {
            return Err(Error::new(Tag::ResourcesExhausted, "too many locks").to_json());
        }
        own.insert(name.to_owned());
        if method == "lock" {
            return Ok(json!({ "locked": self.locks.lock(name, session) }));
        }
        if let Some(victim) = self.locks.steal(name, session) {
            self.send(victim, json!({ "id": null, "method": "stolen", "params": [name] }));
        }
        Ok(json!({ "locked": true }))
    }

    fn unlock(&mut self, session: SessionId, params: &[Value]) -> Answer {
        let name = lock_name("unlock", params)?;
        if !self.session(session)?.locks.remove(name) {
            let details = "unlock: \"unlock\" without \"lock\" or \"steal\"";
            return Err(Error::syntax(&json!(params), details).to_json());
        }
        self.release_lock(name, session);
        Ok(json!({}))
    }
}

fn lock_name<'a>(method: &str, params: &'a [Value]) -> Result<&'a str, Value> {
    match params {
        [Value::String(name)] if is_id(name) => Ok(name),
        _ => Err(Error::syntax(&json!(params), format!("{method} request params must be <id>")).to_json()),
    }
}
