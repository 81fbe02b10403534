//! Numbers and texts of frames and rows: LEB128, lengths before texts, sparse sets.

use std::sync::Arc;

use feedlog_core::rows::Bits;

use super::DecodeError;

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_text_option(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_text(out, text);
        }
    }
}

/// Takes values off the front of some bytes. Never panics.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// Only the shortest form of a number is accepted, so that equal values have equal bytes.
    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let digits = u64::from(byte & 0x7f);
            if shift == 63 && digits > 1 || shift > 0 && byte == 0 {
                return Err(DecodeError::Value("number"));
            }
            number |= digits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(DecodeError::Value("number"))
    }

    pub(super) fn len(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.number()?).map_err(|_| DecodeError::Short)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.len()?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| DecodeError::Value("text"))
    }

    pub(super) fn text_option(&mut self) -> Result<Option<Arc<str>>, DecodeError> {
        match self.byte()? {
            0 => Ok(None),
            1 => Ok(Some(Arc::from(self.text()?))),
            _ => Err(DecodeError::Value("option")),
        }
    }

    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Value("length")) }
    }
}

const RUN: u8 = 16;
const LIST: u8 = 32;
const LIST_MAX: usize = 31;

/// A set in the shortest of three forms: `1..=15` which words follow; 16 one run (first, length − 1); 32 + n, n
/// positions. 0 is the empty set. Of equally short forms the first named here is taken, so that equal sets have equal
/// bytes.
pub(super) fn put_bits(out: &mut Vec<u8>, bits: &Bits) {
    let count = bits.len() as usize;
    if count == 0 {
        return out.push(0);
    }
    let mask: u8 = (0..4_u8).filter(|i| bits.0[usize::from(*i)] != 0).fold(0, |mask, i| mask | (1 << i));
    let words_len = 8 * mask.count_ones() as usize;
    let low = positions(bits).next().unwrap_or(0);
    let high = positions(bits).last().unwrap_or(0);
    let is_run = usize::from(high - low) + 1 == count;
    if is_run && 2 < count && 2 < words_len {
        out.extend_from_slice(&[RUN, low, high - low]);
    } else if count < words_len && count <= LIST_MAX {
        out.push(LIST + count as u8);
        out.extend(positions(bits));
    } else {
        out.push(mask);
        for word in bits.0.iter().filter(|word| **word != 0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }
}

fn positions(bits: &Bits) -> impl Iterator<Item = u8> {
    let words = bits.0;
    (0..4_u8).flat_map(move |i| {
        let mut word = words[usize::from(i)];
        std::iter::from_fn(move || {
            (word != 0).then(|| {
                let at = word.trailing_zeros() as u8;
                word &= word - 1;
                i * 64 + at
            })
        })
    })
}

impl Reader<'_> {
    pub(super) fn bits(&mut self) -> Result<Bits, DecodeError> {
        let mut bits = Bits::EMPTY;
        let mut set = |at: u8| bits.0[usize::from(at / 64)] |= 1 << (at % 64);
        match self.byte()? {
            0 => {}
            RUN => {
                let (low, more) = (self.byte()?, self.byte()?);
                let high = low.checked_add(more).ok_or(DecodeError::Value("set"))?;
                (low..=high).for_each(set);
            }
            tag if tag > LIST && usize::from(tag - LIST) <= LIST_MAX => {
                self.bytes(usize::from(tag - LIST))?.iter().copied().for_each(&mut set);
            }
            mask @ 1..=15 => {
                for i in (0..4).filter(|i| mask & 1 << i != 0) {
                    bits.0[i] = u64::from_le_bytes(self.array()?);
                }
            }
            _ => return Err(DecodeError::Value("set")),
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(bits: &Bits) -> Vec<u8> {
        let mut out = Vec::new();
        put_bits(&mut out, bits);
        out
    }

    #[test]
    fn sets_take_their_shortest_form() {
        let of = |positions: &[u8]| {
            let mut bits = Bits::EMPTY;
            positions.iter().for_each(|at| bits.0[usize::from(at / 64)] |= 1 << (at % 64));
            encoded(&bits)
        };
        assert_eq!(of(&[]), [0]);
        assert_eq!(of(&[255]), [33, 255]);
        assert_eq!(of(&[1, 255]), [34, 1, 255]);
        assert_eq!(of(&(3..=250).collect::<Vec<_>>()), [16, 3, 247]);
        assert_eq!(of(&(0..=255).collect::<Vec<_>>()), [16, 0, 255]);
        assert_eq!(of(&(0..8).map(|i| 2 * i).collect::<Vec<_>>()), [1, 0x55, 0x55, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn sets_come_back(words: [u64; 4], sparse: [u64; 4], thin: bool) {
            let mut bits = Bits(words);
            if thin {
                for (word, other) in bits.0.iter_mut().zip(sparse) {
                    *word &= other & other.rotate_left(7) & other.rotate_left(23);
                }
            }
            let bytes = encoded(&bits);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.bits().unwrap(), bits);
            reader.end().unwrap();
        }

        #[test]
        fn numbers_come_back(number: u64, shift in 0_u32..64) {
            let mut out = Vec::new();
            put_number(&mut out, number >> shift);
            prop_assert_eq!(Reader(&out).number().unwrap(), number >> shift);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let _ = Reader(&bytes).bits();
            let _ = Reader(&bytes).number();
            let _ = Reader(&bytes).text();
        }
    }
}
