//! A bridge: learn the source, look up the destination, say which ports the frame goes to.
