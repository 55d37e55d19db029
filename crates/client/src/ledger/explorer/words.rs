//! What a word of a trace is, in words: which operation of the model, where.
//!
//! In:     a coordinate of a trace. Out: a sentence part; how its bits are to be read.
//! Touches: nothing.
//! Absent: the rules (`surety_proof::dispute::rules`): these words explain them, and bind nobody.

use surety_proof::dispute::{
    Coordinate,
    layout::{By, Head, Norm, PART, Product, SPAN, TILE},
};

/// How the bits of a word are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// A binary32.
    Float,
    /// An integer.
    Integer,
    /// A part of a longer value.
    Bits,
}

/// What a word holds: which operation, where in the model, of which token.
pub(super) fn place(coordinate: &Coordinate) -> String {
    match *coordinate {
        Coordinate::Spelled { index } => format!("how many bytes the prompt’s ids spell, up to id {index}"),
        Coordinate::Text { token } => format!("where the text stands after token {token}"),
        Coordinate::Standing { token, .. } => {
            format!("where the answer stands in its grammar after token {token}")
        }
        Coordinate::Embedding { position, element } => {
            format!("embedding, element {element}, at position {position}")
        }
        Coordinate::NormLanes { norm, part } => {
            format!("{}, sums of squares{}", of_norm(norm), from(part))
        }
        Coordinate::NormInverse { norm } => format!("{}, 1 ÷ root of the mean square", of_norm(norm)),
        Coordinate::NormValue { norm, element } => format!("{}, element {element}", of_norm(norm)),
        Coordinate::Segment { product, output, part } => {
            format!("{}, matrix row {output}: the dot product{}", of_product(product), from(part))
        }
        Coordinate::Total { product, output } => {
            format!("{}, matrix row {output}: the sum of its dot products", of_product(product))
        }
        Coordinate::Query { layer, position, head, element } => {
            format!("layer {layer}, query of head {head}, element {element}, turned for position {position}")
        }
        Coordinate::Key { layer, position, head, element } => {
            format!("layer {layer}, key of head {head}, element {element}, turned for position {position}")
        }
        Coordinate::Value { layer, head, element, position } => {
            format!("layer {layer}, value of head {head}, element {element}, at position {position}")
        }
        Coordinate::Score { head, seen } => {
            format!("{}, score of position {seen}: query times key", of_head(head))
        }
        Coordinate::GreatestScore { head, span } => {
            format!("{}, greatest score up to position {}", of_head(head), last(span, SPAN))
        }
        Coordinate::ScoreBound { head } => format!("{}, bound of the scores", of_head(head)),
        Coordinate::Weight { head, seen } => format!("{}, weight of position {seen}", of_head(head)),
        Coordinate::Normaliser { head, span } => {
            format!("{}, sum of weights up to position {}", of_head(head), last(span, SPAN))
        }
        Coordinate::Reciprocal { head } => format!("{}, 1 ÷ the sum of weights", of_head(head)),
        Coordinate::ValueSum { head, element, span } => format!(
            "{}, sum of weighted values, element {element}, up to position {}",
            of_head(head),
            last(span, SPAN)
        ),
        Coordinate::HeadOutput { head, element } => format!("{}, output, element {element}", of_head(head)),
        Coordinate::AttentionResidual { layer, position, element } => {
            format!("layer {layer}, x after attention, element {element}, at position {position}")
        }
        Coordinate::Gated { layer, position, element } => {
            format!("layer {layer}, gated unit, element {element}, at position {position}")
        }
        Coordinate::LayerResidual { layer, position, element } => {
            format!("layer {layer}, x after the layer, element {element}, at position {position}")
        }
        Coordinate::StateNode { level, index } => {
            format!("tree of the state vectors, node {index} of level {level}")
        }
        Coordinate::Presence { token, .. } => format!("whether token {token} is among the ids given"),
        Coordinate::Repeats { token, .. } => format!("how often token {token} is among the ids resumed from"),
        Coordinate::Count { output, token } => {
            format!("how often token {token} stands before output {output}")
        }
        Coordinate::Excluded { output, token } => {
            format!("output {output}, whether the grammar excludes token {token}")
        }
        Coordinate::Adjusted { output, token } => format!("output {output}, adjusted logit of token {token}"),
        Coordinate::Best { output, tile } => {
            format!("output {output}, best logit up to token {}", last(tile, TILE))
        }
        Coordinate::GreatestLogit { output, tile } => {
            format!("output {output}, greatest logit up to token {}", last(tile, TILE))
        }
        Coordinate::SamplingWeight { output, token } => {
            format!("output {output}, sampling weight of token {token}")
        }
        Coordinate::SelectionSum { output, by, round, tile, digit } => format!(
            "output {output}, {}, round {round}: sum of digit {digit} up to token {}",
            of_selection(by),
            last(tile, TILE)
        ),
        Coordinate::Choice { output, by, round } => {
            format!("output {output}, {}, choice of round {round}", of_selection(by))
        }
        Coordinate::Candidate { output, token } => {
            format!("output {output}, what top_k and min_p leave of token {token}")
        }
        Coordinate::CandidateSum { output, tile } => {
            format!("output {output}, sum of candidates up to token {}", last(tile, TILE))
        }
        Coordinate::Kept { output, token } => format!("output {output}, what top_p leaves of token {token}"),
        Coordinate::KeptSum { output, tile } => {
            format!("output {output}, sum of those kept up to token {}", last(tile, TILE))
        }
        Coordinate::Sampled { output } => format!("output {output}, the sampled token"),
    }
}

/// How the bits of word `part` of a coordinate are read.
pub(super) fn reading(coordinate: &Coordinate, part: u64) -> Reading {
    match coordinate {
        Coordinate::Spelled { .. }
        | Coordinate::Presence { .. }
        | Coordinate::Repeats { .. }
        | Coordinate::Count { .. }
        | Coordinate::Excluded { .. }
        | Coordinate::Sampled { .. } => Reading::Integer,
        Coordinate::Text { .. } if part == 0 => Reading::Integer,
        Coordinate::Best { .. } if part == 1 => Reading::Integer,
        Coordinate::SelectionSum { by: By::Count, .. } => Reading::Integer,
        Coordinate::Text { .. }
        | Coordinate::Standing { .. }
        | Coordinate::StateNode { .. }
        | Coordinate::SamplingWeight { .. }
        | Coordinate::SelectionSum { .. }
        | Coordinate::Choice { .. }
        | Coordinate::Candidate { .. }
        | Coordinate::CandidateSum { .. }
        | Coordinate::Kept { .. }
        | Coordinate::KeptSum { .. } => Reading::Bits,
        _ => Reading::Float,
    }
}

fn of_norm(norm: Norm) -> String {
    match norm {
        Norm::Attention { layer, position } => {
            format!("layer {layer}, norm before attention, at position {position}")
        }
        Norm::Query { layer, position, head } => {
            format!("layer {layer}, norm of the query of head {head}, at position {position}")
        }
        Norm::Key { layer, position, head } => {
            format!("layer {layer}, norm of the key of head {head}, at position {position}")
        }
        Norm::FeedForward { layer, position } => {
            format!("layer {layer}, norm before the feed-forward part, at position {position}")
        }
        Norm::Output { output } => format!("norm before the output matrix, of output {output}"),
    }
}

fn of_product(product: Product) -> String {
    let at = |layer: u64, matrix: &str, position: u64| {
        format!("layer {layer}, {matrix} projection, at position {position}")
    };
    match product {
        Product::Query { layer, position } => at(layer, "query", position),
        Product::Key { layer, position } => at(layer, "key", position),
        Product::Value { layer, position } => at(layer, "value", position),
        Product::AttentionOutput { layer, position } => at(layer, "attention output", position),
        Product::Gate { layer, position } => at(layer, "feed-forward gate", position),
        Product::Up { layer, position } => at(layer, "feed-forward up", position),
        Product::Down { layer, position } => at(layer, "feed-forward down", position),
        Product::Logits { output } => format!("logits of output {output}"),
    }
}

fn of_head(head: Head) -> String {
    let Head { layer, position, head } = head;
    format!("layer {layer}, attention head {head}, at position {position}")
}

fn of_selection(by: By) -> &'static str {
    match by {
        By::Count => "selection of the top_k",
        By::Weight => "selection of the top_p",
    }
}

/// Where a part of a long run of elements begins.
fn from(part: u64) -> String {
    if part == 0 { String::new() } else { format!(" of its elements from {} on", part * PART) }
}

/// The last of a part, if it is whole.
fn last(part: u64, of: u64) -> String {
    format!("{} at most", part * of + of - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_is_placed_in_the_model() {
        let product = Product::AttentionOutput { layer: 3, position: 17 };
        let segment = Coordinate::Segment { product, output: 41, part: 1 };
        assert_eq!(
            place(&segment),
            "layer 3, attention output projection, at position 17, matrix row 41: the dot product of its elements from 1024 on"
        );
        assert_eq!(reading(&segment, 0), Reading::Float);
        let best = Coordinate::Best { output: 2, tile: 0 };
        assert_eq!((reading(&best, 0), reading(&best, 1)), (Reading::Float, Reading::Integer));
        assert_eq!(place(&best), "output 2, best logit up to token 511 at most");
        assert_eq!(reading(&Coordinate::Sampled { output: 1 }, 0), Reading::Integer);
    }
}
