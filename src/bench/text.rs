//! Message texts for benches: compressible like talk, not like random bytes or a repeated letter.

use super::stats::Random;

/// Frequent words; a message is a random walk over them, which compresses about as well as a chat log.
const WORDS: &str = "the a to i you it and is in of that have for on with but not my do me what this are can be so \
    just if no how at your there or like when get one was all would about from know try then use now up install out \
    package error server file does yes need any some has will apt sudo want kernel other think here they did thanks \
    time where same system work works boot driver version why because problem ubuntu help anyone update should more \
    window screen also right make good please after still only into than who which could run see command network \
    sound video card config root user desktop gnome kde partition disk mount drive usb wireless maybe ok sure really \
    something nothing everything someone question answer page link forum wiki channel sorry well first last again";

/// Reads texts from a file (one message a line), or makes them.
pub(super) struct Texts {
    lines: Vec<String>,
    payload_bytes: usize,
    random: Random,
    /// What to print beside the figures.
    pub name: String,
}

impl Texts {
    /// Texts of exactly `payload_bytes` each, from lines of `corpus` joined together, or from common words.
    pub(super) fn new(
        corpus: Option<&std::path::Path>,
        payload_bytes: usize,
        seed: u64,
    ) -> std::io::Result<Self> {
        let (lines, name) = match corpus {
            Some(path) => {
                let text = std::fs::read_to_string(path)?;
                let lines = text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
                (lines, format!("lines of {}", path.display()))
            }
            None => (
                WORDS.split_ascii_whitespace().map(str::to_owned).collect(),
                "random common words".to_owned(),
            ),
        };
        Ok(Self { lines, payload_bytes, random: Random::new(seed), name })
    }

    /// The next payload: a JSON string of exactly the size asked for (at least 2 bytes, the quotes).
    pub(super) fn next(&mut self) -> bytes::Bytes {
        let room = self.payload_bytes.max(2) - 2;
        let mut text = String::with_capacity(room + 64);
        while text.len() < room {
            if !text.is_empty() {
                text.push(' ');
            }
            // Quotes, backslashes and control characters would need escapes and change the size.
            let line = &self.lines[self.random.below(self.lines.len())];
            text.extend(line.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')));
        }
        let mut cut = room;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.truncate(cut);
        while text.len() < room {
            text.push('.');
        }
        bytes::Bytes::from(format!("\"{text}\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_exactly_the_size_asked_for_and_is_json() {
        for size in [2, 3, 200, 1000] {
            let mut texts = Texts::new(None, size, 7).unwrap();
            let payload = texts.next();
            assert_eq!(payload.len(), size);
            assert!(serde_json::from_slice::<String>(&payload).is_ok());
        }
    }
}
