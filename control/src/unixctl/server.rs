//! The sockets of [`super`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::Commands;

/// Longest request, and bytes that may wait for its end.
const MAX_REQUEST: usize = 64 * 1024;
/// Clients served at the same time; more wait in the socket's queue.
const MAX_CLIENTS: usize = 64;
/// A client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(60);

/// Answers on `listener` until `stopped` turns true, which is when the process has cleaned up; lets go of it then.
pub async fn serve<C: 'static>(
    listener: UnixListener,
    commands: Rc<Commands<C>>,
    context: Rc<C>,
    mut stopped: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let next = tokio::select! {
            next = next => next,
            _ = stopped.wait_for(|s| *s) => return,
        };
        match next {
            Ok((stream, permit)) => {
                let client = converse(stream, commands.clone(), context.clone(), stopped.clone());
                tokio::task::spawn_local(async move {
                    client.await;
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!("cannot accept a unixctl connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse<C>(
    mut stream: UnixStream,
    commands: Rc<Commands<C>>,
    context: Rc<C>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut waiting = Vec::new();
    loop {
        match next_request(&waiting) {
            Parsed::Request(request, len) => {
                waiting.drain(..len);
                let (reply, at_exit) = answer(&commands, &*context, &request);
                if at_exit {
                    let _ = stopped.wait_for(|s| *s).await;
                }
                if stream.write_all(reply.to_string().as_bytes()).await.is_err() {
                    return;
                }
            }
            Parsed::Nonsense(why) => {
                tracing::warn!("closing a unixctl connection: {why}");
                return;
            }
            Parsed::Partial => {
                tokio::select! {
                    read = tokio::time::timeout(IDLE, stream.read_buf(&mut waiting)) => match read {
                        Ok(Ok(n)) if n > 0 => {}
                        _ => return,
                    },
                    _ = stopped.wait_for(|s| *s) => return,
                }
            }
        }
    }
}

enum Parsed {
    /// And how many bytes it took.
    Request(Value, usize),
    Partial,
    Nonsense(String),
}

/// Requests follow each other with nothing in between.
fn next_request(bytes: &[u8]) -> Parsed {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    match values.next() {
        Some(Ok(request)) => Parsed::Request(request, values.byte_offset()),
        Some(Err(e)) if !e.is_eof() => Parsed::Nonsense(e.to_string()),
        _ if bytes.len() > MAX_REQUEST => {
            Parsed::Nonsense(format!("a request of more than {MAX_REQUEST} bytes"))
        }
        _ => Parsed::Partial,
    }
}

/// The reply, and whether it waits for the end of the process.
fn answer<C>(commands: &Commands<C>, context: &C, request: &Value) -> (Value, bool) {
    let id = request.get("id").cloned().unwrap_or_default();
    let (Some(method), Some(params)) =
        (request.get("method").and_then(Value::as_str), request.get("params").and_then(Value::as_array))
    else {
        return (json!({ "id": id, "error": "not a JSON-RPC request with method and params\n" }), false);
    };
    let args: Option<Vec<String>> = params.iter().map(|p| p.as_str().map(str::to_owned)).collect();
    let (result, at_exit) = match args {
        Some(args) => {
            tracing::debug!("received request {method}{args:?}");
            commands.run(context, method, &args)
        }
        None => (Err(format!("\"{method}\" command has non-string argument")), false),
    };
    let reply = match result {
        Ok(text) => json!({ "id": id, "result": with_newline(text), "error": null }),
        Err(text) => json!({ "id": id, "error": with_newline(text) }),
    };
    (reply, at_exit)
}

fn with_newline(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixctl::Command;

    fn commands() -> Commands<()> {
        Commands::new([
            Command::new("version", "", 0..=0, |(), _| Ok("v 1".into())),
            Command::new("quiet", "", 0..=9, |(), _| Ok(String::new())),
            Command::new("fail", "", 0..=0, |(), _| Err("no such bridge".into())),
            Command::new("exit", "", 0..=0, |(), _| Ok(String::new())).at_exit(),
        ])
    }

    #[test]
    fn replies_as_recorded() {
        let reply = |text: &str| answer(&commands(), &(), &serde_json::from_str(text).unwrap()).0;
        assert_eq!(
            reply(r#"{"id":0,"method":"version","params":[]}"#),
            json!({"id":0,"result":"v 1\n","error":null})
        );
        assert_eq!(
            reply(r#"{"id":3,"method":"quiet","params":["a"]}"#),
            json!({"id":3,"result":"","error":null})
        );
        assert_eq!(
            reply(r#"{"id":0,"method":"fail","params":[]}"#),
            json!({"id":0,"error":"no such bridge\n"})
        );
        assert_eq!(
            reply(r#"{"id":0,"method":"quiet","params":[1]}"#),
            json!({"id":0,"error":"\"quiet\" command has non-string argument\n"})
        );
        assert!(reply("[]").get("error").is_some());
    }

    #[test]
    fn a_conversation() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let set = tokio::task::LocalSet::new();
        set.block_on(&runtime, async {
            let (stop, stopped) = watch::channel(false);
            let (mut client, server) = UnixStream::pair().unwrap();
            let serving =
                tokio::task::spawn_local(converse(server, Rc::new(commands()), Rc::new(()), stopped));
            let mut got = [0; 512];
            // two requests at once, the second in two pieces
            client.write_all(br#"{"id":0,"method":"version","params":[]}{"id":1,"met"#).await.unwrap();
            let n = client.read(&mut got).await.unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&got[..n]).unwrap()["id"], 0);
            client.write_all(br#"hod":"exit","params":[]}"#).await.unwrap();
            assert!(
                tokio::time::timeout(Duration::from_millis(50), client.read(&mut got)).await.is_err(),
                "answered before the end"
            );
            stop.send(true).unwrap();
            let n = client.read(&mut got).await.unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&got[..n]).unwrap()["id"], 1);
            assert_eq!(client.read(&mut got).await.unwrap(), 0, "the end");
            serving.await.unwrap();
            stop.closed().await;
        });
    }

    #[test]
    fn nonsense_ends_a_conversation() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_stop, stopped) = watch::channel(false);
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(b"}").await.unwrap();
            converse(server, Rc::new(commands()), Rc::new(()), stopped).await;
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        });
    }

    #[test]
    fn requests_are_bounded() {
        let endless = format!("{{\"id\":\"{}", "x".repeat(MAX_REQUEST));
        assert!(matches!(next_request(endless.as_bytes()), Parsed::Nonsense(_)));
        assert!(matches!(next_request(b"{\"id\":"), Parsed::Partial));
        assert!(matches!(next_request(b""), Parsed::Partial));
        let deep = "[".repeat(10_000);
        assert!(matches!(next_request(deep.as_bytes()), Parsed::Nonsense(_)));
    }
}
