//! What `ss -tinmO` says of a socket, as words and `name:value` pairs.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

#[derive(Debug)]
pub struct Row {
    pub words: Vec<String>,
    pub named: HashMap<String, String>,
}

impl Row {
    /// The line of a stream's socket; none where there is no `ss`.
    pub fn of(stream: &TcpStream) -> Option<Row> {
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let end = |side: &str, end: SocketAddr| format!("{side} = {end}");
        let filter = format!("( {} and {} )", end("src", local), end("dst", peer));
        let output = Command::new("ss").args(["-tinmeOH", &filter]).output().ok()?;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "ss {filter}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let mut row = Row { words: Vec::new(), named: HashMap::new() };
        let mut words = text.split_ascii_whitespace();
        while let Some(word) = words.next() {
            match word {
                // Their values stand behind a space.
                "send" | "pacing_rate" | "delivery_rate" | "max_pacing_rate" => {
                    row.named.insert(word.into(), words.next().unwrap_or_default().into());
                }
                _ => match word.split_once(':') {
                    Some((name, value)) => drop(row.named.insert(name.into(), value.into())),
                    None => row.words.push(word.into()),
                },
            }
        }
        Some(row)
    }

    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name)?.parse().ok()
    }

    /// `skmem:(r0,rb131072,…)`, by the letters.
    pub fn memory(&self) -> HashMap<String, u32> {
        let list = self.named["skmem"].trim_matches(['(', ')']);
        let split = |item: &str| {
            let digits = item.find(|char: char| char.is_ascii_digit())?;
            Some((item[..digits].to_owned(), item[digits..].parse().ok()?))
        };
        list.split(',').filter_map(split).collect()
    }
}
