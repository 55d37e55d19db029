use proptest::prelude::*;

use super::*;

const CHUNK: u64 = 1_024;

/// A trace of so many words, and another that differs from some word on.
fn traces(words: u64, from: u64) -> (Hashed<Vec<u8>>, Hashed<Vec<u8>>) {
    let word = |index: u64, salt: u32| (index as u32).wrapping_mul(2_654_435_761) ^ salt;
    let bytes = |changed: &dyn Fn(u64) -> u32| -> Vec<u8> {
        (0..words).flat_map(|index| changed(index).to_le_bytes()).collect()
    };
    let tree = Tree::derived(domain::TRACE, 4 * words).expect("short");
    let ours = bytes(&|index| word(index, 0));
    let theirs = bytes(&|index| word(index, if index >= from { 1 } else { 0 }));
    (Hashed::new(tree, ours), Hashed::new(tree, theirs))
}

/// Plays to the end; the word found, and how many messages that took with opening and leaf.
fn play(ours: &Hashed<Vec<u8>>, theirs: &Hashed<Vec<u8>>) -> (Answer, Game, u32) {
    let mut game = Game::new(ours.tree().bytes() / 4).expect("a game");
    let mut messages = 1;
    loop {
        assert!(matches!(game.turn(), Turn::Root | Turn::Divide));
        let node = game.node();
        let division = division(theirs, node);
        game.divide(&division).expect("an honest division");
        messages += 1;
        game = Game::from_bytes(&game.to_bytes()).expect("a game");
        assert!(game.to_bytes().len() <= BYTES_MAX);
        match answer(ours, node, &division) {
            Answer::Pick { index, value, siblings } => {
                game.pick(index, &value, &siblings).expect("an honest pick");
                messages += 1;
                for (node, value) in game.agreed() {
                    assert_eq!(value, ours.value(node), "what is agreed is the challenger's too");
                }
                assert_eq!(Game::from_bytes(&game.to_bytes()).as_ref(), Some(&game));
            }
            end => return (end, game, messages + 1),
        }
    }
}

fn check_play(words: u64, from: u64) {
    let (ours, theirs) = traces(words, from);
    let (end, game, messages) = play(&ours, &theirs);
    assert_eq!(end, Answer::Word(from));
    assert_eq!(game.turn(), Turn::Leaf);
    assert!(messages <= 9, "{messages} messages");
    let disputed = Node { first: 4 * from / CHUNK, chunks: 1 };
    assert_eq!(game.check(&theirs.open(game.node(), disputed)), Ok(()));
    assert_eq!(game.check_whole(&theirs.open(theirs.tree().root(), disputed)), Ok(()));
    for (node, _) in game.agreed() {
        let last = Node { first: node.end() - 1, chunks: 1 };
        assert_eq!(game.check(&ours.open(node, last)), Ok(()));
        assert!(game.check_whole(&ours.open(node, last)).is_err());
    }
    // All of it in one opening, each node by its own value.
    let known: Vec<Node> = game.known().into_iter().map(|(node, _)| node).collect();
    let mut shown: Vec<u64> = known.iter().rev().take(15).map(|node| node.end() - 1).collect();
    shown.push(disputed.first);
    shown.sort_unstable();
    shown.dedup();
    let opening = theirs.tree().open(known, &shown, &theirs).expect("chunks below them");
    assert_eq!(game.check(&opening), Ok(()));
}

#[test]
fn every_word_is_found() {
    for words in [1, 255, 256, 257, 2_048, 2_049, 9 * 256, 70_001] {
        for from in [0, 1, words / 3, words / 2, words - 1] {
            check_play(words, from.min(words - 1));
        }
    }
    // Two rounds of picks.
    check_play(256 * 9_000 + 7, 256 * 9_000 + 6);
    check_play(256 * 9_000 + 7, 1_234_567);
}

#[test]
fn equal_traces_leave_nothing_to_pick() {
    let (ours, theirs) = traces(70_001, 70_001);
    let (end, ..) = play(&ours, &theirs);
    assert_eq!(end, Answer::Same);
}

#[test]
fn the_longest_trace_takes_nine_messages() {
    assert_eq!(Game::new(0), None);
    assert_eq!(Game::new(TRACE_WORDS_MAX + 1), None);
    for words in [TRACE_WORDS_MAX, TRACE_WORDS_MAX - 257] {
        for last in [false, true] {
            let mut node = Game::new(words).expect("a game").node();
            let mut messages = 2;
            while node.chunks > BYTES_CHUNKS_MAX {
                let index = if last { nodes_below(node) - 1 } else { 0 };
                node = path_to(node, index).expect("it is there").last().expect("below").child;
                messages += 2;
            }
            assert!(messages < 9, "{messages} messages before the leaf");
            let agreed = left_of(Game::new(words).expect("a game").node(), node).expect("a node").len();
            assert!(agreed <= AGREED_MAX, "{agreed}");
        }
    }
}

#[test]
fn moves_out_of_turn_or_of_another_shape_are_refused() {
    let (ours, theirs) = traces(256 * 40, 5_000);
    let mut game = Game::new(256 * 40).expect("a game");
    assert_eq!(game.digest(), None);
    assert_eq!(game.pick(0, &[0; 32], &[]), Err(MoveError::Turn(Turn::Root)));
    assert_eq!(game.divide(&Division::Bytes(vec![0; 40 * 1_024])), Err(MoveError::Shape(Shape::Nodes(40))));
    assert_eq!(game.divide(&Division::Nodes(vec![[0; 32]; 39])), Err(MoveError::Shape(Shape::Nodes(40))));
    let first = division(&theirs, game.node());
    game.divide(&first).expect("a division");
    assert_eq!(game.digest(), Some(&theirs.digest()));
    assert_eq!(game.divide(&first), Err(MoveError::Turn(Turn::Pick)));
    assert_eq!(game.pick(40, &[0; 32], &[]), Err(MoveError::NoSuchNode(40)));
    let Answer::Pick { index, value, siblings } = answer(&ours, game.node(), &first) else {
        panic!("they differ")
    };
    assert_eq!(game.pick(index, &value, &siblings[1..]), Err(MoveError::Path(siblings.len() as u32)));
    assert_eq!(game.pick(index + 1, &value, &siblings), Err(MoveError::Value));
    let before = game.clone();
    assert_eq!(game.pick(index, &ours.digest(), &siblings), Err(MoveError::Value));
    assert_eq!(game, before, "a refused move changes nothing");
    game.pick(index, &value, &siblings).expect("a pick");
    assert_eq!(game.divide(&division(&ours, game.node())), Err(MoveError::Value));
    assert_eq!(
        game.check(&theirs.open(game.node(), game.node())),
        Err(OpeningError::Outside { first: 19, last: 19 })
    );
    game.divide(&division(&theirs, game.node())).expect("its bytes");
    assert_eq!(game.check(&theirs.open(game.node(), game.node())), Ok(()));
}

proptest! {
    #[test]
    fn any_difference_is_found(words in 1u64..200_000, from in any::<prop::sample::Index>()) {
        check_play(words, from.index(words as usize) as u64);
    }

    #[test]
    fn garbage_is_no_game(bytes in prop::collection::vec(any::<u8>(), 0..1_100), words in 1u64..TRACE_WORDS_MAX, flip in any::<prop::sample::Index>()) {
        if let Some(game) = Game::from_bytes(&bytes) {
            prop_assert_eq!(game.to_bytes(), bytes);
        }
        let mut other = Game::new(words).expect("a game").to_bytes();
        let at = flip.index(other.len());
        other[at] ^= 0x11;
        if let Some(game) = Game::from_bytes(&other) {
            let _ = (game.agreed(), game.shape());
            prop_assert_eq!(game.to_bytes(), other);
        }
    }
}
