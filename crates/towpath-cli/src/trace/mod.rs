//! `towpath trace`: TCP connections as ladders, from the wire or from a file.

mod data;
mod ends;
mod fit;
mod ladder;
mod lines;
mod words;
