//! The harness: namespaces, engines, daemons, captures.
