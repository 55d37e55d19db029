//! Provider: the preferences of a request, as OpenRouter spells them.
//!
//! In:     the body's `provider` object and `surety.worker`. Out: `route`'s preferences, or an error that names the member.
//! Touches: nothing.
//! Holds:  every list is bounded; a member is accepted only if it is kept, and what no worker here can promise is refused
//!         with the reason.
//! Absent: which workers there are (`route`).
//!
//! Source: OpenRouter, *Provider Routing*. Providers are named by keys and addresses here, and prices are micro-credits.

use serde_json::value::RawValue;
use surety_types::{Amount, Disclosure, Region, WEI_PER_MICRO_CREDIT};

use super::{
    fields::{self, Fields},
    parameters as table, suffix,
};
use crate::{
    error::{ApiError, Code},
    route::preferences::{Cutoffs, MaxPrice, Name, Preferences, Quantization, Sort, Tier},
};

/// Names in one list.
const NAMES_MAX: usize = 64;
/// Quantizations in one list.
const QUANTIZATIONS_MAX: usize = 16;
/// Tokens a second, or seconds.
const CUTOFF: std::ops::RangeInclusive<f32> = 0.0..=1e9;
/// Characters of a price or a stake.
const NUMBER_CHARACTERS_MAX: usize = 64;
/// Regions in one list.
const REGIONS_MAX: usize = 32;
/// A credit is 10^6 micro-credits.
const MICRO_CREDIT_DIGITS: u32 = 6;

/// The members of `provider`, and what each is.
pub(crate) const MEMBERS: &[(&str, &str)] = &[
    ("order", "Workers and operators to try first, in this order."),
    ("only", "Nobody but these."),
    ("ignore", "None of these."),
    (
        "allow_fallbacks",
        "false: nobody but those of `order`, or without `order` nobody but the best. Default true.",
    ),
    (
        "region",
        "Nobody but who says that it is within one of these, as in eu or us-east. It signs that, and nobody checks it.",
    ),
    ("min_stake", "Nobody whose operator has less bonded on the ledger, in credits."),
    ("require_parameters", "Always so: whoever answers applies every parameter, or the request is refused."),
    ("data_collection", "Only `allow`: no worker can promise to forget what it is asked."),
    ("zdr", "Only false, for the same reason."),
    ("enforce_distillable_text", "Only false: nothing is known about it."),
    (
        "quantizations",
        "The model's weights must be one of int4, int8, fp4, fp6, fp8, fp16, bf16, fp32, unknown.",
    ),
    ("sort", "`price`, `throughput` or `latency`, or an object whose `by` is one of them."),
    (
        "max_price",
        "`prompt` and `completion`: micro-credits (not dollars) per million tokens. `request`, `image` and `audio` are \
         always met: nothing is charged for them.",
    ),
    (
        "preferred_min_throughput",
        "Tokens a second at p50, or an object with p50, p75, p90, p99. Slower workers come last.",
    ),
    ("preferred_max_latency", "Seconds to the first token, likewise. Slower workers come last."),
    (
        "verification",
        "The least tier: exact, statistical, attested, proved or signed. Every model is exact, but for those of upstreams, which are signed, or statistical where they are compared with the model that they are said to be.",
    ),
    (
        "verification_mode",
        "`after` (the default): what is signed is checked before the end, and the computation by audits, later. `before`: a worker \
         of another operator computes the answer too, and nothing is told that it did not give as well; that costs both. The same \
         as `:verified` behind the model's name.",
    ),
    (
        "disclosure",
        "`allow` (the default) or `deny`: whether the worker may show request and answer to an auditor that the ledger draws. \
         With `deny` nobody but you audits it.",
    ),
];

/// Reads `provider`, and what is wished for behind the name of the model.
pub(crate) fn preferences(fields: &mut Fields<'_>, model: &str) -> Result<Preferences, ApiError> {
    let mut preferences = provider(fields)?;
    suffix::split(model).1.add_to(&mut preferences)?;
    Ok(preferences)
}

fn provider(fields: &mut Fields<'_>) -> Result<Preferences, ApiError> {
    let Some(mut provider) = fields.fields("provider")? else { return Ok(Preferences::default()) };
    let provider = &mut provider;
    promises(provider)?;
    let preferences = Preferences {
        worker: None,
        order: names(provider, "order")?,
        only: names(provider, "only")?,
        ignore: names(provider, "ignore")?,
        allow_fallbacks: provider.boolean("allow_fallbacks")?.unwrap_or(true),
        regions: regions(provider)?,
        min_stake: min_stake(provider)?,
        quantizations: quantizations(provider)?,
        sort: sort(provider)?,
        max_price: max_price(provider)?,
        min_throughput: cutoffs(provider, "preferred_min_throughput")?,
        max_latency: cutoffs(provider, "preferred_max_latency")?,
        verification: match provider.string("verification")? {
            None => None,
            Some(text) => Some(one_of("provider.verification", &text, &Tier::ALL)?),
        },
        checked: match provider.string("verification_mode")? {
            None => false,
            Some(text) => one_of("provider.verification_mode", &text, &[("after", false), ("before", true)])?,
        },
        disclosure: match provider.string("disclosure")?.as_deref() {
            None => None,
            Some(text) => {
                one_of("provider.disclosure", text, &[("allow", None), ("deny", Some(Disclosure::Payer))])?
            }
        },
        batch: false,
    };
    let known: Vec<&'static str> = MEMBERS.iter().map(|(name, _)| *name).collect();
    table::nothing_left(provider, &known)?;
    Ok(preferences)
}

/// Reads a worker by the first digits of its key.
pub(crate) fn worker(path: &str, text: &str) -> Result<Name, ApiError> {
    let name = Name::parse(text).filter(|name| !name.is_operator());
    name.ok_or_else(|| {
        let message = format!(
            "`{path}` must be the first {} to 64 hexadecimal digits of a worker's key. /v1/network/status lists the \
             workers.",
            Name::DIGITS_MIN,
        );
        ApiError::invalid(path, message)
    })
}

/// What is asked of a provider's conduct.
fn promises(provider: &mut Fields<'_>) -> Result<(), ApiError> {
    // Whoever answers signs the parameters that were applied, and what nobody applies is refused before anyone is asked.
    provider.boolean("require_parameters")?;
    let refused = |path: &str, why: &str| {
        let message = format!("`{path}` is not supported here, and not silently ignored: {why}");
        Err(ApiError::new(Code::UnsupportedParameter, message).with_param(path))
    };
    const FORGETTING: &str = "a worker sees the prompt in the clear and nothing proves that it forgets it. Leave it out, \
                              or name operators that you trust in `provider.only`; `provider.disclosure` keeps auditors \
                              from it.";
    match provider.string("data_collection")?.as_deref() {
        None | Some("allow") => {}
        Some("deny") => return refused("provider.data_collection", FORGETTING),
        Some(other) => {
            one_of("provider.data_collection", other, &[("allow", ()), ("deny", ())])?;
        }
    }
    if provider.boolean("zdr")? == Some(true) {
        return refused("provider.zdr", FORGETTING);
    }
    if provider.boolean("enforce_distillable_text")? == Some(true) {
        let why = "nothing here says whether a model's text may be distilled. Leave it out and read the model's licence.";
        return refused("provider.enforce_distillable_text", why);
    }
    Ok(())
}

fn names(provider: &mut Fields<'_>, member: &str) -> Result<Vec<Name>, ApiError> {
    let path = provider.path(member);
    let Some(raw) = provider.take(member) else { return Ok(Vec::new()) };
    let name = |(index, raw): (usize, &RawValue)| {
        let path = format!("{path}[{index}]");
        let text = fields::string(&path, raw)?;
        Name::parse(&text).ok_or_else(|| {
            let message = format!(
                "`{path}` is \"{}\", which names nobody here. Name an operator by its address (0x and {least} or more \
                 digits) or a worker by its key ({least} or more digits). /v1/network/status lists both.",
                fields::quote(&text),
                least = Name::DIGITS_MIN,
            );
            ApiError::invalid(path, message)
        })
    };
    let names: Vec<Name> =
        fields::list(&path, raw, NAMES_MAX)?.into_iter().enumerate().map(name).collect::<Result<_, _>>()?;
    if names.is_empty() && member == "only" {
        let message = "`provider.only` is empty, so nobody could answer. Name somebody, or leave it out.";
        return Err(ApiError::invalid(path, message));
    }
    Ok(names)
}

/// A region, or a list of them.
fn regions(provider: &mut Fields<'_>) -> Result<Vec<Region>, ApiError> {
    const PATH: &str = "provider.region";
    let Some(raw) = provider.take("region") else { return Ok(Vec::new()) };
    let one = |path: &str, raw: &RawValue| {
        let text = fields::string(path, raw)?;
        Region::new(text).map_err(|invalid| ApiError::invalid(path, format!("`{path}` {}.", invalid.problem)))
    };
    if fields::first_byte(raw) == b'"' {
        return Ok(vec![one(PATH, raw)?]);
    }
    let list = fields::list(PATH, raw, REGIONS_MAX)?;
    if list.is_empty() {
        let message = "`provider.region` is empty, so nobody could answer. Name a region, or leave it out.";
        return Err(ApiError::invalid(PATH, message));
    }
    list.into_iter().enumerate().map(|(index, raw)| one(&format!("{PATH}[{index}]"), raw)).collect()
}

/// Credits as a number or a text; to the micro-credit, rounded up: less is not enough.
fn min_stake(provider: &mut Fields<'_>) -> Result<u128, ApiError> {
    let path = provider.path("min_stake");
    let Some(raw) = provider.take("min_stake") else { return Ok(0) };
    let credits = decimal(&path, raw, "a number from 0: credits", |text| parts(text, MICRO_CREDIT_DIGITS))?;
    let (whole, fraction) = credits;
    Ok(whole.saturating_add(fraction.into()).saturating_mul(WEI_PER_MICRO_CREDIT))
}

fn quantizations(provider: &mut Fields<'_>) -> Result<Vec<Quantization>, ApiError> {
    const PATH: &str = "provider.quantizations";
    let Some(raw) = provider.take("quantizations") else { return Ok(Vec::new()) };
    let one = |(index, raw): (usize, &RawValue)| {
        let path = format!("{PATH}[{index}]");
        one_of(&path, &fields::string(&path, raw)?, &Quantization::ALL)
    };
    fields::list(PATH, raw, QUANTIZATIONS_MAX)?.into_iter().enumerate().map(one).collect()
}

/// A text, or an object whose `by` is one. With one model asked for, both partitions are the same.
fn sort(provider: &mut Fields<'_>) -> Result<Option<Sort>, ApiError> {
    const PATH: &str = "provider.sort";
    let Some(raw) = provider.take("sort") else { return Ok(None) };
    let (path, text) = match fields::first_byte(raw) {
        b'"' => (PATH.to_owned(), Some(fields::string(PATH, raw)?)),
        b'{' => {
            let mut object = Fields::object(PATH.to_owned(), raw)?;
            let by = object.string("by")?;
            if let Some(partition) = object.string("partition")? {
                one_of(&object.path("partition"), &partition, &[("model", ()), ("none", ())])?;
            }
            table::nothing_left(&object, &["by", "partition"])?;
            (object.path("by"), by)
        }
        _ => return Err(fields::wrong_type(PATH, raw, "a text, or an object with `by`")),
    };
    text.map(|text| one_of(&path, &text, &Sort::ALL)).transpose()
}

fn max_price(provider: &mut Fields<'_>) -> Result<MaxPrice, ApiError> {
    let Some(mut prices) = provider.fields("max_price")? else { return Ok(MaxPrice::default()) };
    let mut most = |member: &str| {
        let path = prices.path(member);
        prices.take(member).map(|raw| price(&path, raw)).transpose()
    };
    let (prompt, completion) = (most("prompt")?, most("completion")?);
    // Nothing is charged for these, so any limit is kept.
    for member in ["request", "image", "audio"] {
        most(member)?;
    }
    table::nothing_left(&prices, &["prompt", "completion", "request", "image", "audio"])?;
    Ok(MaxPrice { prompt, completion })
}

/// A price, rounded down to a whole micro-credit.
fn price(path: &str, raw: &RawValue) -> Result<Amount, ApiError> {
    let wanted = "a number from 0: micro-credits (not dollars) per million tokens";
    decimal(path, raw, wanted, |text| parts(text, 0)).map(|(whole, _)| Amount(whole))
}

/// A number as a number or, as some clients write it, as a text.
fn decimal<T>(
    path: &str,
    raw: &RawValue,
    wanted: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ApiError> {
    let quoted;
    let text = if fields::first_byte(raw) == b'"' {
        quoted = fields::string(path, raw)?;
        quoted.as_str()
    } else {
        raw.get()
    };
    let number = Some(text).filter(|text| text.len() <= NUMBER_CHARACTERS_MAX).and_then(read);
    number.ok_or_else(|| fields::wrong_type(path, raw, wanted))
}

/// A decimal number from 0 with its point moved to the right: the whole part, exactly, or the greatest there is for what
/// is greater; and whether there is more than that.
fn parts(text: &str, moved: u32) -> Option<(u128, bool)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if whole.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = whole.len() as i64 + i64::from(exponent) + i64::from(moved);
    let significant = digits.trim_start_matches('0');
    let point = point - (digits.len() - significant.len()) as i64;
    if significant.is_empty() || point <= 0 {
        return Some((0, !significant.is_empty()));
    }
    // 2^128 has 39 digits.
    let Ok(point @ ..=39) = usize::try_from(point) else { return Some((u128::MAX, false)) };
    let (kept, rest) = significant.split_at(point.min(significant.len()));
    let padded = format!("{kept}{}", "0".repeat(point - kept.len()));
    Some((padded.parse().unwrap_or(u128::MAX), rest.bytes().any(|digit| digit != b'0')))
}

/// A number, which is meant at p50, or an object of percentiles.
fn cutoffs(provider: &mut Fields<'_>, member: &str) -> Result<Cutoffs, ApiError> {
    let path = provider.path(member);
    let Some(raw) = provider.take(member) else { return Ok(Cutoffs::default()) };
    if fields::first_byte(raw) != b'{' {
        let cutoff = fields::number(&path, raw, CUTOFF)?;
        return Ok(Cutoffs([Some(cutoff), None, None, None]));
    }
    let mut object = Fields::object(path, raw)?;
    let mut cutoffs = Cutoffs::default();
    for (cutoff, name) in cutoffs.0.iter_mut().zip(Cutoffs::NAMES) {
        *cutoff = object.number(name, CUTOFF)?;
    }
    table::nothing_left(&object, &Cutoffs::NAMES)?;
    Ok(cutoffs)
}

/// One of some words.
fn one_of<T: Copy>(path: &str, text: &str, words: &[(&str, T)]) -> Result<T, ApiError> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message =
            format!("`{path}` is \"{}\". It must be one of {}.", fields::quote(text), known.join(", "));
        ApiError::invalid(path, message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(provider: &str) -> Result<Preferences, ApiError> {
        let body = format!(r#"{{"provider":{provider}}}"#);
        let mut fields = Fields::body(&body).expect("JSON");
        let preferences = preferences(&mut fields, "tiny");
        assert_eq!(fields.names().next(), None);
        preferences
    }

    fn check_refused(provider: &str, code: Code, param: &str, words: &str) {
        let error = read(provider).expect_err(provider);
        assert_eq!((error.code(), error.param()), (code, Some(param)), "{}", error.message());
        assert!(error.message().contains(words), "{} lacks {words}", error.message());
    }

    #[test]
    fn every_member_is_read() {
        let name = |text| Name::parse(text).expect("a name");
        let preferences = read(
            r#"{"order":["01234567","0xABCDEF01"],"only":["01234567"],"ignore":["89abcdef"],"allow_fallbacks":false,"region":["eu","us-east"],"min_stake":"12.5",
                "require_parameters":true,"disclosure":"deny","data_collection":"allow","zdr":false,"enforce_distillable_text":false,
                "quantizations":["int8","fp16"],"sort":{"by":"throughput","partition":"none"},
                "max_price":{"prompt":1.9,"completion":"2e6","request":0,"image":"1","audio":3},
                "preferred_min_throughput":50,"preferred_max_latency":{"p50":1,"p99":5.5},"verification":"exact",
                "verification_mode":"before"}"#,
        )
        .expect("all of them");
        let expected = Preferences {
            worker: None,
            order: vec![name("01234567"), name("0xabcdef01")],
            only: vec![name("01234567")],
            ignore: vec![name("89abcdef")],
            allow_fallbacks: false,
            regions: ["eu", "us-east"].map(|text| Region::new(text).expect(text)).into(),
            min_stake: 12_500_000 * WEI_PER_MICRO_CREDIT,
            quantizations: vec![Quantization::Int8, Quantization::Fp16],
            sort: Some(Sort::Throughput),
            max_price: MaxPrice { prompt: Some(Amount(1)), completion: Some(Amount(2_000_000)) },
            min_throughput: Cutoffs([Some(50.0), None, None, None]),
            max_latency: Cutoffs([Some(1.0), None, None, Some(5.5)]),
            verification: Some(Tier::Exact),
            disclosure: Some(Disclosure::Payer),
            checked: true,
            batch: false,
        };
        assert_eq!(preferences, expected);
        assert!(!read(r#"{"verification_mode":"after"}"#).expect("the default").checked);
        assert_eq!(read("{}").expect("nothing"), Preferences::default());
        assert_eq!(read("null").expect("nothing"), Preferences::default());
        assert_eq!(read(r#"{"sort":"price"}"#).expect("a sort").sort, Some(Sort::Price));
        assert_eq!(read(r#"{"sort":{"partition":"model"}}"#).expect("no sort").sort, None);
        assert!(read(r#"{"order":[],"ignore":[],"only":null}"#).is_ok());
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_name() {
        use Code::{InvalidParam, UnknownParameter, UnsupportedParameter};
        let many = format!(r#"{{"ignore":[{}]}}"#, vec![r#""01234567""#; NAMES_MAX + 1].join(","));
        for (provider, code, param, words) in [
            (r#"[]"#, InvalidParam, "provider", "an object"),
            (r#"{"orders":[]}"#, UnknownParameter, "provider.orders", "Did you mean `order`?"),
            (r#"{"order":["OpenAI"]}"#, InvalidParam, "provider.order[0]", "an operator by its address"),
            (r#"{"only":[]}"#, InvalidParam, "provider.only", "nobody could answer"),
            (r#"{"only":"01234567"}"#, InvalidParam, "provider.only", "a list"),
            (many.as_str(), InvalidParam, "provider.ignore", "at most 64"),
            (r#"{"data_collection":"deny"}"#, UnsupportedParameter, "provider.data_collection", "forgets"),
            (r#"{"data_collection":"maybe"}"#, InvalidParam, "provider.data_collection", "`deny`"),
            (r#"{"disclosure":"none"}"#, InvalidParam, "provider.disclosure", "`deny`"),
            (r#"{"zdr":true}"#, UnsupportedParameter, "provider.zdr", "forgets"),
            (
                r#"{"enforce_distillable_text":true}"#,
                UnsupportedParameter,
                "provider.enforce_distillable_text",
                "licence",
            ),
            (r#"{"region":[]}"#, InvalidParam, "provider.region", "nobody could answer"),
            (r#"{"region":["EU"]}"#, InvalidParam, "provider.region[0]", "lower-case"),
            (r#"{"region":"eu-"}"#, InvalidParam, "provider.region", "hyphens between"),
            (r#"{"region":{}}"#, InvalidParam, "provider.region", "a list"),
            (r#"{"min_stake":-1}"#, InvalidParam, "provider.min_stake", "credits"),
            (r#"{"min_stake":[1]}"#, InvalidParam, "provider.min_stake", "credits"),
            (r#"{"quantizations":["int3"]}"#, InvalidParam, "provider.quantizations[0]", "`int4`"),
            (r#"{"sort":"speed"}"#, InvalidParam, "provider.sort", "`throughput`"),
            (r#"{"sort":{"by":"speed"}}"#, InvalidParam, "provider.sort.by", "`throughput`"),
            (r#"{"sort":7}"#, InvalidParam, "provider.sort", "an object with `by`"),
            (r#"{"max_price":{"prompt":-1}}"#, InvalidParam, "provider.max_price.prompt", "micro-credits"),
            (r#"{"max_price":{"image":"$1"}}"#, InvalidParam, "provider.max_price.image", "micro-credits"),
            (r#"{"max_price":3}"#, InvalidParam, "provider.max_price", "an object"),
            (r#"{"max_price":{"output":3}}"#, UnknownParameter, "provider.max_price.output", "Leave it out"),
            (
                r#"{"preferred_max_latency":{"p95":1}}"#,
                UnknownParameter,
                "provider.preferred_max_latency.p95",
                "Did you mean",
            ),
            (
                r#"{"preferred_min_throughput":-1}"#,
                InvalidParam,
                "provider.preferred_min_throughput",
                "between 0",
            ),
            (r#"{"verification":"sure"}"#, InvalidParam, "provider.verification", "`proved`"),
            (r#"{"verification_mode":"never"}"#, InvalidParam, "provider.verification_mode", "`before`"),
            (r#"{"verification_mode":true}"#, InvalidParam, "provider.verification_mode", "a string"),
        ] {
            check_refused(provider, code, param, words);
        }
    }

    #[test]
    fn every_member_described_is_one_that_is_read() {
        for (member, _) in MEMBERS {
            let provider = format!(r#"{{"{member}":{{"no such member":[{{}}]}}}}"#);
            let error = read(&provider).expect_err(&provider);
            assert_ne!(error.message(), "");
            let param = error.param().expect("a parameter");
            assert!(param.starts_with(&format!("provider.{member}")), "{param}");
        }
    }

    #[test]
    fn prices_are_cut_to_whole_micro_credits_exactly() {
        for (text, whole) in [
            ("0", Some(0)),
            ("0.99999999999999999999", Some(0)),
            ("12.5", Some(12)),
            ("1e6", Some(1_000_000)),
            ("1.5e1", Some(15)),
            ("125E-2", Some(1)),
            ("0.001e3", Some(1)),
            ("1e-9", Some(0)),
            ("340282366920938463463374607431768211455", Some(u128::MAX)),
            ("340282366920938463463374607431768211456", Some(u128::MAX)),
            ("1e999", Some(u128::MAX)),
            ("0e999", Some(0)),
            ("00012", Some(12)),
            ("-1", None),
            ("+1", None),
            ("", None),
            (".5", None),
            ("1.2.3", None),
            ("1e", None),
            ("1e9999999999", None),
            ("NaN", None),
        ] {
            assert_eq!(parts(text, 0).map(|(whole, _)| whole), whole, "{text}");
        }
    }

    #[test]
    fn a_stake_is_rounded_up_to_a_micro_credit() {
        for (text, micro) in [
            ("0", 0),
            ("1", 1_000_000),
            ("0.0000001", 1),
            ("1.0000010", 1_000_001),
            ("1.0000011", 1_000_002),
            ("\"1e-3\"", 1000),
            ("1e-9", 1),
            ("1e999", u128::MAX),
        ] {
            let stake = read(&format!(r#"{{"min_stake":{text}}}"#)).expect(text).min_stake;
            assert_eq!(stake, micro.saturating_mul(WEI_PER_MICRO_CREDIT), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_part_is_the_floor(number in 0.0f64..1e15) {
            let expected = Some((number.floor() as u128, number.fract() != 0.0));
            prop_assert_eq!(parts(&number.to_string(), 0), expected);
            prop_assert_eq!(parts(&format!("{number:e}"), 0), expected);
        }

        #[test]
        fn any_text_is_a_price_or_none(text in "[0-9.eE+-]{0,20}") {
            parts(&text, MICRO_CREDIT_DIGITS);
        }
    }
}
