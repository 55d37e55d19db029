//! GPT-2's alphabet: each byte as one printable character, as vocabulary files spell their tokens.
//!
//! In:     bytes.
//! Out:    their spelling; the order in which GPT-2 numbers them.
//! Holds:  the spelling is one to one.
//!
//! Source: Radford et al. 2019, `bytes_to_unicode` in the published encoder.

/// Bytes in GPT-2's order: those that print as themselves, then the rest.
pub fn bytes_in_order() -> impl Iterator<Item = u8> {
    (0..=255).filter(|byte| prints(*byte)).chain((0..=255).filter(|byte| !prints(*byte)))
}

fn prints(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// Spells bytes in GPT-2's printable alphabet: a space is `Ġ`, a line feed `Ċ`.
pub fn spell(bytes: &[u8]) -> String {
    let spell_byte = |byte: u8| {
        if prints(byte) {
            return char::from(byte);
        }
        let nth = (0..byte).filter(|byte| !prints(*byte)).count() as u32;
        char::from_u32(256 + nth).expect("the alphabet lies within Latin Extended-A")
    };
    bytes.iter().map(|byte| spell_byte(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spelled_as_gpt2_spells_them() {
        assert_eq!(spell(b" a\n"), "ĠaĊ");
        assert_eq!(spell(&[0, 0x7f, 0xad]), "ĀġŃ");
        let order: Vec<u8> = bytes_in_order().collect();
        assert_eq!((order.len(), order[0], order[93], order[188]), (256, b'!', b'~', 0));
    }
}
