//! The line in which a filter is typed. What is wrong with it stands beside it while it is typed.

#![forbid(unsafe_code)]

use super::super::filter::Filter;
use super::keys::Key;

/// A filter as it is being typed.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    text: String,
    /// In bytes, between two characters.
    cursor: usize,
    /// What it means, or why it cannot be meant.
    meaning: Option<Result<Filter, String>>,
}

/// What a key comes to.
#[derive(Debug)]
pub(super) enum Typing {
    Goes,
    Done(Filter),
    Left,
}

impl Prompt {
    /// Begins with the filter that there is.
    pub(super) fn new(filter: &Filter) -> Prompt {
        let text = filter.to_string();
        let mut prompt = Prompt { cursor: text.len(), text, meaning: None };
        prompt.understand();
        prompt
    }

    pub(super) fn key(&mut self, key: Key) -> Typing {
        match key {
            Key::Escape => return Typing::Left,
            Key::Enter => {
                if let Some(Ok(filter)) = &self.meaning {
                    return Typing::Done(filter.clone());
                }
            }
            Key::Control('u') => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            Key::Control('w') => {
                let word = self.text[..self.cursor].trim_end().rfind(' ').map_or(0, |space| space + 1);
                self.text.drain(word..self.cursor);
                self.cursor = word;
            }
            Key::Char(c) => {
                self.text.insert(self.cursor, c);
                self.cursor += c.len_utf8();
            }
            Key::Backspace => {
                if let Some(c) = self.before() {
                    self.cursor -= c.len_utf8();
                    self.text.remove(self.cursor);
                }
            }
            Key::Delete if self.cursor < self.text.len() => drop(self.text.remove(self.cursor)),
            Key::Left => self.cursor -= self.before().map_or(0, char::len_utf8),
            Key::Right => self.cursor += self.text[self.cursor..].chars().next().map_or(0, char::len_utf8),
            Key::Home | Key::Control('a') => self.cursor = 0,
            Key::End | Key::Control('e') => self.cursor = self.text.len(),
            _ => {}
        }
        self.understand();
        Typing::Goes
    }

    /// What is typed, before the cursor and after it.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.text.split_at(self.cursor)
    }

    /// Why it cannot be meant.
    pub(super) fn error(&self) -> Option<&str> {
        self.meaning.as_ref()?.as_ref().err().map(String::as_str)
    }

    fn before(&self) -> Option<char> {
        self.text[..self.cursor].chars().next_back()
    }

    fn understand(&mut self) {
        self.meaning = Some(self.text.parse::<Filter>().map_err(|e| e.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(prompt: &mut Prompt, text: &str) {
        for c in text.chars() {
            prompt.key(Key::Char(c));
        }
    }

    #[test]
    fn a_filter_is_typed_and_applied() {
        let mut prompt = Prompt::new(&Filter::default());
        typed(&mut prompt, "port:83");
        let Typing::Done(filter) = prompt.key(Key::Enter) else { panic!("{prompt:?}") };
        assert_eq!(filter.to_string(), "port:83");
        assert!(matches!(prompt.key(Key::Escape), Typing::Left));
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_not_applied() {
        let mut prompt = Prompt::new(&Filter::default());
        typed(&mut prompt, "state:close");
        assert_eq!(prompt.error(), None);
        typed(&mut prompt, "-w");
        assert!(prompt.error().unwrap().contains("no state is called close-w"));
        assert!(matches!(prompt.key(Key::Enter), Typing::Goes));
        typed(&mut prompt, "ait");
        assert!(matches!(prompt.key(Key::Enter), Typing::Done(_)));
    }

    #[test]
    fn the_line_is_edited_character_by_character() {
        let mut prompt = Prompt::new(&"process:naïve".parse().unwrap());
        for _ in 0..2 {
            prompt.key(Key::Left);
        }
        prompt.key(Key::Backspace);
        assert_eq!(prompt.parts(), ("process:na", "ve"));
        prompt.key(Key::Delete);
        typed(&mut prompt, "ï");
        assert_eq!(prompt.parts(), ("process:naï", "e"));
        prompt.key(Key::Home);
        prompt.key(Key::Backspace);
        prompt.key(Key::Left);
        assert_eq!(prompt.parts(), ("", "process:naïe"));
        for _ in 0..40 {
            prompt.key(Key::Right);
        }
        prompt.key(Key::Delete);
        assert_eq!(prompt.parts(), ("process:naïe", ""));
        prompt.key(Key::Left);
        prompt.key(Key::Delete);
        assert_eq!(prompt.parts(), ("process:naï", ""));
        typed(&mut prompt, "e port:1");
        prompt.key(Key::Control('w'));
        assert_eq!(prompt.parts().0, "process:naïe ");
        prompt.key(Key::Control('u'));
        assert_eq!(prompt.parts(), ("", ""));
    }
}
