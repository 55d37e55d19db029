//! The view: whether what people read says what the signed bytes say.

use alloc::{string::String, vec::Vec};

use crate::{
    json::Json,
    records::{FAILED, Field, PROMPTS, Presence, Type, Value},
};

/// Whether JSON shows a record, beside a signer if it is signed.
pub(crate) fn shows(
    json: Json<'_>,
    fields: &[Field],
    values: &[Value<'_>],
    signer: Option<&[u8; 32]>,
) -> bool {
    let is_shown =
        |field: &Field, value: &Value<'_>| field.presence != Presence::Hidden || !value.is_absent();
    let shown = || fields.iter().zip(values).filter(|(field, value)| is_shown(field, value));
    let mut names: Vec<&str> = shown().map(|(field, _)| field.name).collect();
    names.extend(signer.map(|_| "signed_by"));
    let Ok(found) = json.fields(&names) else { return false };
    let is_signer = signer.is_none_or(|signer| found.last().is_some_and(|found| is_hex(*found, "", signer)));
    is_signer && shown().zip(&found).all(|((field, value), found)| is(*found, &field.r#type, value))
}

fn is(json: Json<'_>, r#type: &Type, value: &Value<'_>) -> bool {
    if value.is_absent() {
        return json.is_null();
    }
    match (r#type, value) {
        (Type::Number(_), Value::Number(number)) => json.integer() == Some(i128::from(*number)),
        (Type::Truth, Value::Number(number)) => json.truth() == Some(*number == 1),
        (Type::Amount, Value::Amount(number)) => json.is(&digits(*number)),
        (Type::Bytes, Value::Bytes(bytes)) => is_hex(json, "", bytes),
        (Type::Model, Value::Bytes(bytes)) => is_hex(json, "blake3:", bytes),
        (Type::Float, Value::Float(float)) => json.is(&decimal(float.0)),
        (Type::Text(_) | Type::Json(_) | Type::Region, Value::Text(text)) => json.is(text),
        (Type::Bare(names), Value::Number(number)) => json.is(names[*number as usize]),
        (Type::List(_, item), Value::Many(items)) => are(json, items, |json, value| is(json, item, value)),
        (Type::Record(fields), Value::Many(values)) => shows(json, fields, values, None),
        (Type::Seed, Value::Choice(0, caller)) => {
            let caller = i128::from(caller[0].number() as i64);
            json.fields(&["caller"]).is_ok_and(|found| found[0].integer() == Some(caller))
        }
        (Type::Seed, _) => json.is("nonce"),
        (Type::Bias, Value::Many(pair)) => json.list(2).is_ok_and(|found| {
            found.len() == 2
                && is(found[0], &Type::Number(32), &pair[0])
                && is(found[1], &Type::Float, &pair[1])
        }),
        (Type::Prompt, Value::Choice(number, values)) => {
            let (name, fields) = &PROMPTS[*number];
            json.fields(&[name]).is_ok_and(|found| match fields {
                // What is one thing is shown as that.
                [one] => is(found[0], &one.r#type, &values[0]),
                fields => shows(found[0], fields, values, None),
            })
        }
        (Type::Outcome, Value::Choice(0, _)) => json.is("completed"),
        (Type::Outcome, Value::Choice(_, values)) => {
            json.fields(&["failed"]).is_ok_and(|found| shows(found[0], FAILED, values, None))
        }
        _ => false,
    }
}

/// Whether JSON lists exactly these.
pub(crate) fn are<T>(json: Json<'_>, items: &[T], is: impl Fn(Json<'_>, &T) -> bool) -> bool {
    json.list(items.len()).is_ok_and(|found| {
        found.len() == items.len() && found.iter().zip(items).all(|(json, item)| is(*json, item))
    })
}

fn is_hex(json: Json<'_>, prefix: &str, bytes: &[u8; 32]) -> bool {
    json.text().is_ok_and(|text| {
        text.strip_prefix(prefix.as_bytes()).and_then(from_hex).is_some_and(|found| found == *bytes)
    })
}

///
pub(crate) fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.try_into().ok()?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn digits(mut number: u128) -> String {
    let mut digits = Vec::new();
    loop {
        let (quotient, digit) = divided(number, 10);
        digits.push(b'0' + digit as u8);
        number = quotient;
        if number == 0 {
            return digits.iter().rev().map(|digit| char::from(*digit)).collect();
        }
    }
}

/// Quotient and remainder; word by word, as a whole division of 128 bits takes a page more code.
pub(crate) fn divided(number: u128, by: u32) -> (u128, u32) {
    let (mut quotient, mut rest) = (0, 0);
    for at in (0..4).rev() {
        let word = u64::from(rest) << 32 | (number >> (32 * at)) as u64 & 0xffff_ffff;
        quotient = quotient << 32 | u128::from(word / u64::from(by));
        rest = (word % u64::from(by)) as u32;
    }
    (quotient, rest)
}

/// A number of 192 bits, the least significant word first; 152 of them are behind the point.
type Fixed = [u32; 6];
const POINT: usize = 152;

/// The shortest decimal that is nearer to a binary32 of at most 127 in size than to any other; of those the nearest.
///
/// Source: Steele and White 1990, free-format printing; as every integer here is a binary32, no digit carries past the point.
pub(crate) fn decimal(bits: u32) -> String {
    let (exponent, fraction) = (bits >> 23 & 0xff, bits & 0x7f_ffff);
    let mut text = String::from(if bits >> 31 == 1 { "-" } else { "" });
    // In units of 2^-150: half of the smallest binary32.
    let (mantissa, shift) =
        if exponent == 0 { (fraction << 1, 0) } else { ((fraction | 0x80_0000) << 1, exponent as usize - 1) };
    let mut rest = fixed(mantissa, shift + POINT - 150);
    let above = fixed(1, shift + POINT - 150);
    // Below a power of two its neighbours are half as far apart.
    let below = fixed(1, shift + POINT - 150 - usize::from(fraction == 0 && exponent > 1));
    let (mut above, mut below) = (above, below);
    let is_even = fraction & 1 == 0;
    text.push_str(&digits(whole(&mut rest).into()));
    if rest == [0; 6] {
        return text;
    }
    text.push('.');
    loop {
        for number in [&mut rest, &mut above, &mut below] {
            times_ten(number);
        }
        let mut digit = whole(&mut rest);
        let one = fixed(1, POINT);
        let is_low = if is_even { !is_less(&below, &rest) } else { is_less(&rest, &below) };
        let sum = add(&rest, &above);
        let is_high = if is_even { !is_less(&sum, &one) } else { is_less(&one, &sum) };
        if is_high && (!is_low || !is_less(&add(&rest, &rest), &one)) {
            digit += 1;
        }
        text.push(char::from(b'0' + digit as u8));
        if is_low || is_high {
            return text;
        }
    }
}

fn fixed(value: u32, shift: usize) -> Fixed {
    let mut number = [0; 6];
    let wide = u64::from(value) << (shift % 32);
    for (at, word) in [(shift / 32, wide as u32), (shift / 32 + 1, (wide >> 32) as u32)] {
        if let Some(place) = number.get_mut(at) {
            *place = word;
        }
    }
    number
}

/// Takes what is before the point.
fn whole(number: &mut Fixed) -> u32 {
    const { assert!(POINT / 32 == 4 && POINT % 32 == 24) };
    let whole = number[4] >> 24 | number[5] << 8;
    number[4] &= 0xff_ffff;
    number[5] = 0;
    whole
}

fn times_ten(number: &mut Fixed) {
    let mut carry = 0;
    for word in number {
        carry += u64::from(*word) * 10;
        *word = carry as u32;
        carry >>= 32;
    }
}

fn add(one: &Fixed, other: &Fixed) -> Fixed {
    let (mut sum, mut carry) = ([0; 6], 0);
    for (place, (a, b)) in sum.iter_mut().zip(one.iter().zip(other)) {
        carry += u64::from(*a) + u64::from(*b);
        *place = carry as u32;
        carry >>= 32;
    }
    sum
}

fn is_less(one: &Fixed, other: &Fixed) -> bool {
    one.iter().rev().lt(other.iter().rev())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_shown_as_the_language_shows_them() {
        let edges = [
            0.0,
            -0.0,
            1.0,
            0.1,
            0.7,
            2.0,
            100.0,
            -100.0,
            0.01,
            f32::MIN_POSITIVE,
            1e-45,
            9.8e-45,
            0.99999994,
        ];
        for value in edges {
            assert_eq!(decimal(value.to_bits()), value.to_string());
        }
        // Powers of two, and their neighbours.
        for exponent in 0..134u32 {
            for bits in [exponent << 23, (exponent << 23) + 1, (exponent << 23).saturating_sub(1)] {
                assert_eq!(decimal(bits), f32::from_bits(bits).to_string());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn every_float_in_range_is(bits in 0..=100f32.to_bits(), negative: bool) {
            let bits = bits | u32::from(negative) << 31;
            prop_assert_eq!(decimal(bits), f32::from_bits(bits).to_string());
        }
    }
}
