//! Preferences: what a caller wants of whoever answers.
//!
//! In:     values that `api` has read. Out: whether a worker is named, which tier is reached, what a model is quantised to.
//! Touches: nothing.
//! Holds:  every list is bounded by whoever reads it; a name is one worker or one operator.
//! Absent: JSON (`api`), choosing (`choice`).

use std::{borrow::Cow, collections::BTreeSet, fmt};

use alloy_primitives::Address;
use surety_types::{Amount, Disclosure, Manifest, Price, PublicKey, Region};

use crate::error::ApiError;

/// Names listed in a message.
const NAMES_LISTED: usize = 8;

/// What a caller wants. The default wants nothing in particular.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Preferences {
    /// The only worker wanted: `surety.worker`.
    pub(crate) worker: Option<Name>,
    /// To be tried first, in this order.
    pub(crate) order: Vec<Name>,
    /// Nobody else, unless empty.
    pub(crate) only: Vec<Name>,
    /// None of these.
    pub(crate) ignore: Vec<Name>,
    /// Whether, when those of `order` or else the best cannot, others may.
    pub(crate) allow_fallbacks: bool,
    /// Within one of these by its own word, unless empty.
    pub(crate) regions: Vec<Region>,
    /// At least so much bonded to its operator, in wei.
    pub(crate) min_stake: u128,
    /// One of these, unless empty.
    pub(crate) quantizations: Vec<Quantization>,
    pub(crate) sort: Option<Sort>,
    pub(crate) max_price: MaxPrice,
    /// Tokens a second by percentile; slower workers come last.
    pub(crate) min_throughput: Cutoffs,
    /// Seconds to the first token by percentile; slower workers come last.
    pub(crate) max_latency: Cutoffs,
    /// At least this tier.
    pub(crate) verification: Option<Tier>,
    /// What the order says of auditors; it keeps no worker out.
    pub(crate) disclosure: Option<Disclosure>,
    /// A worker of another operator computes the answer too, before the caller has all of it.
    pub(crate) checked: bool,
    /// It may wait for a worker that is idle, and is ordered at what such a worker asks: the lane of batches.
    pub(crate) batch: bool,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            worker: None,
            order: Vec::new(),
            only: Vec::new(),
            ignore: Vec::new(),
            allow_fallbacks: true,
            regions: Vec::new(),
            min_stake: 0,
            quantizations: Vec::new(),
            sort: None,
            max_price: MaxPrice::default(),
            min_throughput: Cutoffs::default(),
            max_latency: Cutoffs::default(),
            verification: None,
            disclosure: None,
            checked: false,
            batch: false,
        }
    }
}

impl Preferences {
    /// Whether the best is for us to say, so that now and then a newcomer may be tried.
    pub(crate) fn leave_order_open(&self) -> bool {
        self.order.is_empty() && self.allow_fallbacks && self.sort.is_none() && !self.have_cutoffs()
    }

    /// The same of whoever checks the answer: another than the one that alone may give it.
    pub(crate) fn of_check(&self) -> Preferences {
        let allow_fallbacks = self.allow_fallbacks || self.order.is_empty();
        Preferences { worker: None, allow_fallbacks, ..self.clone() }
    }

    /// The same once a worker has begun: where nobody but the best may answer, it is the one.
    pub(crate) fn begun_by(&self, worker: &PublicKey) -> Cow<'_, Preferences> {
        if self.allow_fallbacks || !self.order.is_empty() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Preferences { order: vec![Name::of(worker)], ..self.clone() })
    }

    /// Whether a worker that says so of itself is in a region that is wanted.
    pub(crate) fn admits_region(&self, claimed: Option<&Region>) -> bool {
        self.regions.is_empty()
            || claimed.is_some_and(|claimed| self.regions.iter().any(|wanted| claimed.is_within(wanted)))
    }

    pub(crate) fn have_cutoffs(&self) -> bool {
        self.min_throughput != Cutoffs::default() || self.max_latency != Cutoffs::default()
    }

    /// Refuses a name that several of the known workers or operators begin with.
    pub(crate) fn check_names(&self, known: &[(PublicKey, Option<Address>)]) -> Result<(), ApiError> {
        for (parameter, name) in self.names() {
            let named = known.iter().filter(|(worker, operator)| name.names(worker, operator.as_ref()));
            let found: BTreeSet<String> = named
                .map(|(worker, operator)| match operator.filter(|_| name.operator) {
                    Some(operator) => operator.to_string(),
                    None => worker.to_string(),
                })
                .collect();
            if found.len() > 1 {
                let message = format!(
                    "`{parameter}` has \"{name}\", which stands for {} here, among them {}. Give more digits.",
                    found.len(),
                    found.into_iter().take(NAMES_LISTED).collect::<Vec<_>>().join(", "),
                );
                return Err(ApiError::invalid(parameter, message));
            }
        }
        Ok(())
    }

    /// The names, each with the parameter it stands in.
    fn names(&self) -> impl Iterator<Item = (&'static str, &Name)> {
        let lists = [
            ("surety.worker", self.worker.as_slice()),
            ("provider.order", &self.order),
            ("provider.only", &self.only),
            ("provider.ignore", &self.ignore),
        ];
        lists.into_iter().flat_map(|(parameter, names)| names.iter().map(move |name| (parameter, name)))
    }
}

/// A worker by the first digits of its key, or an operator by those of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    nibbles: [u8; 64],
    digits: usize,
    operator: bool,
}

impl Name {
    /// Digits that are enough.
    pub(crate) const DIGITS_MIN: usize = 8;

    /// A worker, by all its digits.
    pub(crate) fn of_worker(key: &PublicKey) -> Option<Name> {
        Self::parse(&key.to_string())
    }

    /// Reads `0x` and the first digits of an operator's address, or the first digits of a worker's key.
    pub(crate) fn parse(text: &str) -> Option<Name> {
        let (digits, operator, most) = match text.strip_prefix("0x") {
            Some(digits) => (digits, true, 2 * size_of::<Address>()),
            None => (text, false, 2 * size_of::<PublicKey>()),
        };
        if !(Self::DIGITS_MIN..=most).contains(&digits.len()) {
            return None;
        }
        let mut nibbles = [0; 64];
        for (nibble, digit) in nibbles.iter_mut().zip(digits.chars()) {
            *nibble = digit.to_digit(16)? as u8;
        }
        Some(Name { nibbles, digits: digits.len(), operator })
    }

    /// A worker by its whole key.
    fn of(worker: &PublicKey) -> Name {
        let mut nibbles = [0; 64];
        for (pair, byte) in nibbles.chunks_exact_mut(2).zip(worker.as_bytes()) {
            pair.copy_from_slice(&[byte >> 4, byte & 15]);
        }
        Name { nibbles, digits: nibbles.len(), operator: false }
    }

    /// Whether the worker is named, by itself or by its operator.
    pub(crate) fn names(&self, worker: &PublicKey, operator: Option<&Address>) -> bool {
        match (self.operator, operator) {
            (false, _) => self.begins(worker.as_bytes()),
            (true, Some(operator)) => self.begins(operator.as_slice()),
            (true, None) => false,
        }
    }

    pub(crate) fn is_operator(&self) -> bool {
        self.operator
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        let theirs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        self.nibbles[..self.digits].iter().copied().eq(theirs.take(self.digits))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operator {
            formatter.write_str("0x")?;
        }
        self.nibbles[..self.digits].iter().try_for_each(|nibble| write!(formatter, "{nibble:x}"))
    }
}

/// By what to order workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Price,
    Throughput,
    Latency,
}

impl Sort {
    pub(crate) const ALL: [(&str, Sort); 3] =
        [("price", Sort::Price), ("throughput", Sort::Throughput), ("latency", Sort::Latency)];
}

/// The most that may be asked, in micro-credits per million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MaxPrice {
    pub(crate) prompt: Option<Amount>,
    pub(crate) completion: Option<Amount>,
}

impl MaxPrice {
    pub(crate) fn admits(&self, price: &Price) -> bool {
        self.prompt.is_none_or(|most| price.prompt <= most && price.cached <= most)
            && self.completion.is_none_or(|most| price.output <= most)
    }
}

/// Thresholds at the percentiles 50, 75, 90 and 99.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cutoffs(pub(crate) [Option<f32>; 4]);

impl Cutoffs {
    pub(crate) const NAMES: [&str; 4] = ["p50", "p75", "p90", "p99"];

    /// Whether all that are given hold; what was never measured meets none.
    pub(crate) fn met(&self, measured: Option<[f32; 4]>, holds: impl Fn(f32, f32) -> bool) -> bool {
        let mut given =
            self.0.iter().enumerate().filter_map(|(index, cutoff)| cutoff.map(|cut| (index, cut)));
        given.all(|(index, cutoff)| measured.is_some_and(|measured| holds(measured[index], cutoff)))
    }
}

/// What is promised of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// A party signed it.
    Signed,
    /// Any engine, compared statistically.
    Statistical,
    /// Our arithmetic, to the bit: whoever recomputes it gets the same.
    Exact,
    /// Evidence of hardware binds code and key.
    Attested,
    /// A proof of the whole computation.
    Proved,
}

impl Tier {
    pub(crate) const ALL: [(&str, Tier); 5] = [
        ("exact", Tier::Exact),
        ("statistical", Tier::Statistical),
        ("attested", Tier::Attested),
        ("proved", Tier::Proved),
        ("signed", Tier::Signed),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, tier)| *tier == self).map_or("", |(name, _)| name)
    }

    /// Whether an answer of this tier is also one of the other. Hardware's word is no arithmetic, and none is a proof.
    pub(crate) fn reaches(self, wanted: Tier) -> bool {
        self == wanted
            || match self {
                Tier::Signed => false,
                Tier::Statistical | Tier::Attested => wanted == Tier::Signed,
                Tier::Exact => matches!(wanted, Tier::Signed | Tier::Statistical),
                Tier::Proved => wanted != Tier::Attested,
            }
    }
}

/// How far a model's weights are quantised, as OpenRouter names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantization {
    Int4,
    Int8,
    Fp4,
    Fp6,
    Fp8,
    Fp16,
    Bf16,
    Fp32,
    Unknown,
}

impl Quantization {
    pub(crate) const ALL: [(&str, Quantization); 9] = [
        ("int4", Quantization::Int4),
        ("int8", Quantization::Int8),
        ("fp4", Quantization::Fp4),
        ("fp6", Quantization::Fp6),
        ("fp8", Quantization::Fp8),
        ("fp16", Quantization::Fp16),
        ("bf16", Quantization::Bf16),
        ("fp32", Quantization::Fp32),
        ("unknown", Quantization::Unknown),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, quantization)| *quantization == self).map_or("", |(name, _)| name)
    }

    /// That of most of a model's bytes.
    pub(crate) fn of(manifest: &Manifest) -> Quantization {
        let most = manifest.formats.iter().max_by_key(|format| format.bytes);
        match most.map_or("", |format| format.name.as_str()) {
            "F32" => Quantization::Fp32,
            "F16" => Quantization::Fp16,
            "BF16" => Quantization::Bf16,
            name if name.starts_with("Q8") => Quantization::Int8,
            name if name.starts_with("Q4") || name.starts_with("IQ4") => Quantization::Int4,
            name if name.starts_with("MXFP4") => Quantization::Fp4,
            _ => Quantization::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_keys_and_addresses_by_their_first_digits() {
        let worker = PublicKey([0xab; 32]);
        let operator = Address::repeat_byte(0xcd);
        let names = |text: &str| Name::parse(text).expect(text).names(&worker, Some(&operator));
        for (text, expected) in [
            ("abababab", true),
            ("ABABABAB", true),
            ("ababababa", true),
            ("abababac", false),
            ("0xcdcdcdcd", true),
            ("0xabababab", false),
            ("cdcdcdcd", false),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
        assert_eq!(Name::parse(&worker.to_string()), Some(Name::of(&worker)));
        assert!(names(&worker.to_string()) && names(&operator.to_string()));
        assert!(!Name::parse("0xcdcdcdcd").expect("a name").names(&worker, None));
        let long = "a".repeat(65);
        for text in
            ["", "openai", "abababa", "0xcdcdcdc", "0Xcdcdcdcd", "abababax", "äbababab", long.as_str()]
        {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        assert_eq!(Name::parse(&format!("0x{}", "a".repeat(41))), None);
    }

    #[test]
    fn a_name_stands_for_one() {
        let key = |last: u8| {
            let mut bytes = [0xab; 32];
            bytes[31] = last;
            PublicKey(bytes)
        };
        let operators = [Address::repeat_byte(0xcd), Address::repeat_byte(0xcd), Address::repeat_byte(0xce)];
        let known: Vec<_> = [1, 2, 3].map(key).into_iter().zip(operators.map(Some)).collect();
        let check = |text: &str| {
            let name = Name::parse(text).expect(text);
            let preferences = Preferences { ignore: vec![name], ..Preferences::default() };
            preferences.check_names(&known).map_err(|error| error.message().to_owned())
        };
        assert!(check("abababab").expect_err("three").contains("stands for 3 here"));
        assert_eq!(check(&key(2).to_string()), Ok(()));
        assert_eq!(check("12345678"), Ok(()), "nobody, which is not ambiguous");
        assert_eq!(check("0xcdcdcdcd"), Ok(()), "one operator, of two workers");
        assert_eq!(check(&operators[2].to_string()), Ok(()));
    }

    #[test]
    fn a_tier_is_never_called_by_a_stronger_one_s_name() {
        use Tier::{Attested, Exact, Proved, Signed, Statistical};
        for (has, wanted) in [
            (Signed, &[Signed][..]),
            (Statistical, &[Signed, Statistical]),
            (Exact, &[Signed, Statistical, Exact]),
            (Attested, &[Signed, Attested]),
            (Proved, &[Signed, Statistical, Exact, Proved]),
        ] {
            let reached: Vec<Tier> =
                Tier::ALL.into_iter().map(|(_, tier)| tier).filter(|tier| has.reaches(*tier)).collect();
            assert!(wanted.iter().all(|tier| reached.contains(tier)), "{has:?} {reached:?}");
            assert_eq!(reached.len(), wanted.len(), "{has:?} {reached:?}");
        }
    }

    #[test]
    fn cutoffs_are_met_all_or_not_at_all() {
        let cutoffs = Cutoffs([Some(1.0), None, Some(2.0), None]);
        let met = |measured| cutoffs.met(measured, |measured, most| measured <= most);
        assert!(met(Some([1.0, 9.0, 2.0, 9.0])));
        assert!(!met(Some([1.0, 1.0, 2.1, 9.0])) && !met(None));
        assert!(Cutoffs::default().met(None, |_, _| false));
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_that_prints_the_same_or_none(text in "(0x)?[0-9a-fA-Fg ]{0,70}") {
            if let Some(name) = Name::parse(&text) {
                prop_assert_eq!(name.to_string(), text.to_lowercase());
            }
        }
    }
}
