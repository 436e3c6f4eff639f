//! TCP segments from the wire or from a file, and the connections that they make up.
