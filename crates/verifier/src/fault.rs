//! Every way in which evidence can fail, by number; the words are the page's.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident $code:literal,)*) => {
        /// Why evidence does not hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Fault { $($(#[doc = $doc])* $name,)* }

        impl Fault {
            /// Each with its code, in the order of their numbers.
            pub const ALL: &[(Fault, &str)] = &[$((Fault::$name, $code),)*];
        }
    };
}

faults! {
    /// longer than any evidence.
    TooLong "too_long",
    /// not JSON in UTF-8.
    NotJson "not_json",
    /// a field is missing, unknown, repeated or of another type.
    Fields "fields",
    /// of another version.
    Version "version",
    /// too many answers, or none.
    Answers "answers",
    /// bytes that are not in their one spelling.
    Base64 "base64",
    /// bytes that are no signed message, or no record in its one encoding.
    Unreadable "unreadable",
    /// R-4 … R-7: a record that breaks its own bounds.
    Invalid "invalid",
    /// the request id is not the envelope's.
    RequestId "request_id",
    /// the view does not say what the signed bytes say.
    View "view",

    /// not validly signed.
    EnvelopeSignature "envelope_signature",
    /// the envelope names another number of answers.
    PartCount "part_count",
    ///
    OrderSignature "order_signature",
    ///
    OtherRequest "other_request",
    /// G-1
    OtherGrammar "other_grammar",
    ///
    ResumedCount "resumed_count",
    ///
    ResumedDigest "resumed_digest",
    ///
    ProgressBesideReceipt "progress_beside_receipt",
    ///
    ProgressSignature "progress_signature",
    ///
    ProgressOfOtherOrder "progress_of_other_order",
    ///
    NotSignedFor "not_signed_for",
    ///
    AcceptanceMissing "acceptance_missing",
    /// not validly signed by the worker that answered.
    AcceptanceSignature "acceptance_signature",
    ///
    AcceptanceOfOtherOrder "acceptance_of_other_order",
    ///
    AcceptanceOfOtherModel "acceptance_of_other_model",
    ///
    DeadlineMoved "deadline_moved",
    ///
    PriceAboveCeiling "price_above_ceiling",
    ///
    LimitRaised "limit_raised",
    ///
    AcceptedLate "accepted_late",
    ///
    ReceiptSignature "receipt_signature",
    ///
    ReceiptOfOtherOrder "receipt_of_other_order",
    ///
    OtherModel "other_model",
    ///
    OtherArithmetic "other_arithmetic",
    ///
    Word "word",
    ///
    OtherSeed "other_seed",
    ///
    PromptCount "prompt_count",
    ///
    PromptTokens "prompt_tokens",
    ///
    PromptDigest "prompt_digest",
    ///
    OtherPromptTokens "other_prompt_tokens",
    ///
    OutputCount "output_count",
    ///
    OutputDigest "output_digest",
    ///
    TextDigest "text_digest",
    ///
    OverLimit "over_limit",
    ///
    LimitNotReached "limit_not_reached",
    ///
    StoppedAtNothing "stopped_at_nothing",
    ///
    NothingToStopAt "nothing_to_stop_at",
    ///
    NothingToPay "nothing_to_pay",
    ///
    StopStringInText "stop_string_in_text",
    ///
    SaltMissing "salt_missing",
    ///
    CommitmentMissing "commitment_missing",
    ///
    FailureWithState "failure_with_state",
    ///
    RefusalWithOutput "refusal_with_output",
    ///
    OtherPrice "other_price",
    ///
    Charge "charge",
    ///
    ChargeOverflow "charge_overflow",
    ///
    AcceptedAt "accepted_at",
    ///
    Late "late",
    ///
    VectorUnasked "vector_unasked",
    ///
    Vector "vector",
    ///
    VectorDimensions "vector_dimensions",
    ///
    OtherVector "other_vector",

    ///
    OtherPart "other_part",
    ///
    NotAContinuation "not_a_continuation",
    ///
    Unfinished "unfinished",
    ///
    CheckOfNothing "check_of_nothing",
    ///
    CheckDiffers "check_differs",
    ///
    EnvelopeCharge "envelope_charge",
}
