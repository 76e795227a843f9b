//! A blocking JSON-RPC 1.0 session with the database server (RFC 7047 section 4).

use super::view::{Needs, View};
use ovsdb::Schema;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

const DATABASE: &str = "Open_vSwitch";

/// Why the database cannot be reached or does not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Rust adds the error's number in brackets; users know the text without.
    #[error("{}", without_number(.0))]
    Io(#[from] io::Error),
    #[error("End of file")]
    Closed,
    #[error("the server sent what is no JSON-RPC: {0}")]
    Malformed(String),
    #[error("the server refused \"{method}\": {error}")]
    Refused { method: String, error: Value },
}

fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

type Messages =
    serde_json::StreamDeserializer<'static, serde_json::de::IoRead<BufReader<Box<dyn Read>>>, Value>;

/// An open session.
pub struct Connection {
    messages: Messages,
    writer: Box<dyn Write>,
    next_id: u64,
    /// Updates that arrived while the answer to a request was awaited.
    updates: VecDeque<Value>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("next_id", &self.next_id).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `unix:FILE` (relative to `rundir`) or `tcp:HOST:PORT`; of several, with commas between, to the first
    /// that answers.
    pub fn open(remotes: &str, rundir: &Path) -> Result<Connection, Error> {
        let mut last = Error::Io(io::ErrorKind::AddrNotAvailable.into());
        for remote in remotes.split(',') {
            match connect(remote, rundir) {
                Ok((reader, writer)) => {
                    let messages = serde_json::Deserializer::from_reader(BufReader::new(reader)).into_iter();
                    return Ok(Connection { messages, writer, next_id: 0, updates: VecDeque::new() });
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Reads the server's schema and everything that is needed, and keeps it current from now on.
    pub fn subscribe(&mut self, needs: &Needs) -> Result<View, Error> {
        let schema = self.call("get_schema", &json!([DATABASE]))?;
        let schema = Schema::from_json(&schema).map_err(|error| Error::Malformed(error.to_string()))?;
        let mut view = View::new(schema);
        let requests = view.monitor_requests(needs);
        let initial = self.call("monitor", &json!([DATABASE, null, requests]))?;
        view.update(&initial).map_err(Error::Malformed)?;
        Ok(view)
    }

    /// Commits operations. The results stand in the order of the operations.
    pub fn transact(&mut self, operations: Vec<Value>) -> Result<Vec<Value>, Error> {
        let mut params = vec![json!(DATABASE)];
        params.extend(operations);
        match self.call("transact", &Value::Array(params))? {
            Value::Array(results) => Ok(results),
            other => Err(Error::Malformed(other.to_string())),
        }
    }

    /// Waits until the server reports a change, and takes in all that it has reported.
    pub fn wait_for_update(&mut self, view: &mut View) -> Result<(), Error> {
        while self.updates.is_empty() {
            let message = self.receive()?;
            self.sort_in(message)?;
        }
        self.take_updates(view)
    }

    /// Takes in what was reported while answers were awaited.
    pub fn take_updates(&mut self, view: &mut View) -> Result<(), Error> {
        for update in self.updates.drain(..) {
            view.update(&update).map_err(Error::Malformed)?;
        }
        Ok(())
    }

    /// Asks one question and waits for its answer.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value, Error> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "id": id, "method": method, "params": params }))?;
        loop {
            let mut message = self.receive()?;
            if message.get("id") != Some(&json!(id)) || message.get("method").is_some() {
                self.sort_in(message)?;
                continue;
            }
            return match message.get_mut("error").map(Value::take).unwrap_or_default() {
                Value::Null => Ok(message.get_mut("result").map(Value::take).unwrap_or_default()),
                error => Err(Error::Refused { method: method.to_owned(), error }),
            };
        }
    }

    fn send(&mut self, message: &Value) -> Result<(), Error> {
        self.writer.write_all(message.to_string().as_bytes()).map_err(Error::from)
    }

    fn receive(&mut self) -> Result<Value, Error> {
        match self.messages.next() {
            Some(Ok(message)) => Ok(message),
            None => Err(Error::Closed),
            Some(Err(error)) if error.is_io() => Err(Error::Io(error.into())),
            Some(Err(error)) if error.is_eof() => Err(Error::Closed),
            Some(Err(error)) => Err(Error::Malformed(error.to_string())),
        }
    }

    /// Deals with a message that nobody waits for.
    fn sort_in(&mut self, mut message: Value) -> Result<(), Error> {
        match message.get("method").and_then(Value::as_str) {
            Some("update") => {
                let update = message.get_mut("params").and_then(|params| params.get_mut(1)).map(Value::take);
                self.updates.push_back(update.unwrap_or_default());
                Ok(())
            }
            Some("echo") => {
                let (id, params) = (message.get("id"), message.get("params"));
                self.send(&json!({ "id": id, "result": params, "error": null }))
            }
            _ => Ok(()),
        }
    }
}

fn connect(remote: &str, rundir: &Path) -> io::Result<(Box<dyn Read>, Box<dyn Write>)> {
    match remote.split_once(':') {
        Some(("unix", path)) => {
            let stream = UnixStream::connect(rundir.join(path))?;
            Ok((Box::new(stream.try_clone()?), Box::new(stream)))
        }
        Some(("tcp", address)) => {
            let stream = TcpStream::connect(address)?;
            Ok((Box::new(stream.try_clone()?), Box::new(stream)))
        }
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}
