//! What the rules give, on few jobs. `surety economics --simulate` runs many.

use super::{
    agents::{Cheater, Extorter, Flaky, Honest, OnDraw, Scammer, best_share},
    *,
};

const EFFORT: Effort = Effort { jobs: 10_000, runs: 10, seed: 1 };

/// Operators that have passed as many audits as the default rate needs.
fn established() -> Market {
    Market { score: Rules::default().audit_passes, ..Market::default() }
}

fn compared(strategy: Strategy, rules: &Rules, market: &Market, effort: Effort) -> Comparison {
    let compared = compare(&strategy, rules, market, &effort, &mut Twins::default());
    compared.unwrap_or_else(|violation| panic!("{violation}"))
}

fn party(agent: impl Agent + 'static, owner: u32, market: &Market) -> Party {
    Party { agent: Box::new(agent), owner, coalition: None, bond: market.bond, purse: market.purse }
}

fn ran(
    rules: &Rules,
    market: &Market,
    first: impl Agent + 'static,
    outsiders: Vec<Outsider>,
    jobs: u64,
) -> Outcome {
    let mut parties = vec![party(first, 0, market)];
    parties.extend((1..market.operators as u32).map(|owner| party(Honest, owner, market)));
    let (rules, market) = (rules.clone(), market.clone());
    run(Setting { rules, market, parties, outsiders, jobs, seed: 7 })
        .unwrap_or_else(|broken| panic!("{broken}"))
}

#[test]
fn numbers_of_a_seed_are_the_same_and_even() {
    let mut random = Random::new(1, 2);
    let again: Vec<u64> = std::iter::repeat_with(|| random.bits()).take(3).collect();
    let mut random = Random::new(1, 2);
    assert!(again.iter().all(|bits| *bits == random.bits()));
    assert_ne!(Random::new(1, 3).bits(), Random::new(1, 2).bits());
    let hits = (0..100_000).filter(|_| random.chance(20_000)).count();
    assert!((1_800..2_200).contains(&hits), "{hits} of 100,000 at 2 %");
    assert!((0..1_000).all(|_| random.below(3) < 3 && random.unit() > 0.0));
}

#[test]
fn forged_money_is_seen() {
    let mut books = Books::default();
    let (one, two) = (books.open(10), books.open(0));
    assert_eq!((books.pay(one, two, 7), books.pay(one, two, 7)), (7, 3));
    assert_eq!(checks::conserved(&books), Ok(()));
    books.forge(one, 1);
    assert_eq!(checks::conserved(&books), Err(Invariant::Conserved { opened_with: 10, now: 11 }));
}

#[test]
fn an_honest_loss_is_seen() {
    let check = |bond_now, tally: Tally| checks::honest_keeps(3, bond_now, &tally);
    let tally = Tally { bonded: 100, ..Tally::default() };
    assert_eq!(check(100, tally.clone()), Ok(()));
    assert_eq!(check(90, tally.clone()), Err(Invariant::HonestKeeps { operator: 3, lost: 10, own: 0 }));
    assert_eq!(check(90, Tally { compensated: 10, ..tally.clone() }), Ok(()));
    let convicted = Tally { lies: 1, ..tally.clone() };
    assert_eq!(check(100, convicted), Err(Invariant::MemoryRule { operator: 3, convicted: 1 }));
    let unpaid = Tally { defence_spent: 2, defence_repaid: 1, ..tally };
    assert_eq!(check(100, unpaid), Err(Invariant::DefencePaid { operator: 3, spent: 2, repaid: 1 }));
}

#[test]
fn rates_and_caps_are_the_ledgers() {
    let rules = Rules::default();
    let rates: Vec<u64> = [0, 1, 2, 64, 128, 1_000].iter().map(|score| rules.rate_ppm(*score)).collect();
    assert_eq!(rates, [1_000_000, 1_000_000, 640_000, 20_000, 10_000, 10_000]);
    let bond = 10_000_000_000;
    // Of what a conviction takes, which is a tenth.
    assert_eq!(rules.cap(bond, 20_000), 20_408_163);
    assert_eq!((rules.cap(bond, 500_000), rules.cap(bond, PPM)), (bond / 10, bond / 10));
    assert_eq!(rules.forfeit(300_000, 50), 60_000_000);
    // A tenth of the stake; ten times a dear answer; never more than half.
    assert_eq!(rules.slash(bond, 1), 1_000_000_000);
    assert_eq!(rules.slash(bond, 300_000_000), 3_000_000_000);
    assert_eq!(rules.slash(bond, bond), 5_000_000_000);
}

#[test]
fn rules_are_set_by_the_names_of_parameters() {
    let mut rules = Rules::default();
    assert!(rules.set("audit_ppm", 5_000) && rules.audit_ppm == 5_000);
    assert!(
        rules.set("worker_stake_min", 2_000_000_000_000_000_000) && rules.worker_stake_min == 2_000_000_000
    );
    assert!(!rules.set("pace_ms", 1) && !rules.set("worker_stake_min", u128::MAX));
    assert_eq!(rules, Rules { audit_ppm: 5_000, worker_stake_min: 2_000_000_000, ..Rules::default() });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let market = Market { operators: 4, ..Market::default() };
    let cheater = || Cheater { share_ppm: 100_000, on_draw: OnDraw::Shows };
    let rules = Rules::default();
    let runs = [(); 2].map(|()| ran(&rules, &market, cheater(), vec![], 2_000));
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].tallies[0].lies > 0, "new operators are audited: {:?}", runs[0].tallies[0]);
}

/// Row 42 of the attacks: the stake outlasts the audits of the last epoch.
#[test]
fn an_exit_scam_pays_only_if_stake_leaves_before_audits() {
    let market = Market { operators: 2, jobs_per_epoch: 600, ..established() };
    let scammed = |unbonding_s| {
        let rules = Rules { unbonding_s, ..Rules::default() };
        let outcome = ran(&rules, &market, Scammer { epochs: 1 }, vec![], 1_200);
        (outcome.tallies[0].lies, outcome.tallies[0].slashed)
    };
    assert_eq!(scammed(0).1, 0, "nothing is left to take");
    let (lies, slashed) = scammed(Rules::default().unbonding_s);
    assert!(lies > 0 && slashed > 500_000_000, "{lies} convictions took {slashed}");
}

/// Rows 28 and 29: whoever accuses falsely pays, and the accused does not.
#[test]
fn false_accusations_cost_the_accuser() {
    let market = Market { operators: 3, ..established() };
    let outsider =
        Outsider { agent: Extorter { disputes: 100, claims: 2 }, owner: 9, purse: 500 * market.bond };
    let rules = Rules::default();
    let outcome = ran(&rules, &market, Honest, vec![outsider], 2_000);
    let accuser = &outcome.tallies[3];
    let epochs = 2_000 / market.jobs_per_epoch;
    assert_eq!(accuser.accusations_won, 0);
    assert_eq!(accuser.accusations_lost, epochs * (rules.dispute_open_max + 2), "a bound on open disputes");
    assert!(outcome.profits[3] < -(80 * rules.dispute_bond_min as i64));
    let spent: u64 = outcome.tallies[..3].iter().map(|tally| tally.defence_spent).sum();
    let repaid: u64 = outcome.tallies[..3].iter().map(|tally| tally.defence_repaid).sum();
    assert!(spent > 0 && repaid >= spent, "{spent} spent, {repaid} repaid");
}

/// Done-when 5, the second sentence: 1 − 0.98¹⁰⁰, and the bond makes the expectation negative.
#[test]
fn a_hundred_cheated_replies_are_caught_and_do_not_pay() {
    let found =
        detection(&Rules::default(), &Market::default(), 400, 1).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(found.exact > 0.867 && found.exact < 0.868, "{}", found.exact);
    let away = (found.simulated.mean - found.exact).abs();
    assert!(away < 1.5 * found.simulated.half_width, "{found:?}");
    assert!(found.gain.negative() && found.gain_exact < 0.0, "{found:?}");
}

/// Done-when 2, the second sentence, with fewer jobs.
#[test]
fn flaky_honest_workers_are_held_to_no_more_than_the_memory_rule() {
    // Bits flip a hundred times as often, so that some of what is drawn is false.
    let flaky = Flaky { fault_ppm: 10_000, ..Flaky::default() };
    let found = flaky_run(&Rules::default(), &Market::default(), flaky, 2_000, 1);
    let found = found.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(found.memory_faults > 3 && found.cleared > 100 && found.failures > 10, "{found:?}");
    assert_eq!(found.lies, 0);
    // Who does not compute again what is drawn learns of its fault from the verdict.
    let careless = Flaky { checks: false, ..flaky };
    let found = flaky_run(&Rules::default(), &Market::default(), careless, 2_000, 1);
    assert!(matches!(found, Err(Violation { broken: Invariant::MemoryRule { .. }, .. })), "{found:?}");
}

#[test]
fn honest_is_the_best_reply_but_for_those_that_are_named() {
    let (rules, market) = (Rules::default(), established());
    let mut twins = Twins::default();
    for strategy in strategies() {
        let found = compare(&strategy, &rules, &market, &EFFORT, &mut twins);
        let found = found.unwrap_or_else(|violation| panic!("{violation}"));
        match strategy {
            // It chooses to be honest.
            Strategy::Rational => assert_eq!(found.difference.mean, 0.0),
            // docs/economics.md: skipping what does not pay, and starving the auditors of a lie, is not told apart from
            // honesty here.
            Strategy::Selective | Strategy::Cheating(10_000, OnDraw::Starves) => {
                assert!(found.difference.mean.abs() < 0.05 * found.honest.mean, "{found:?}");
            }
            // A hundred lies in all runs: two convictions are expected, none is possible.
            Strategy::Cheating(10_000, _) => {
                assert!(found.difference.mean < 0.02 * found.honest.mean, "{found:?}")
            }
            _ => assert!(found.difference.negative(), "{found:?}"),
        }
        match strategy {
            // Rows 25 and 26, each for its reason.
            Strategy::Lazy | Strategy::Copying => assert!(found.audits_unpaid > 50 && found.lies == 0),
            Strategy::Cheating(1_000_000, OnDraw::Shows) | Strategy::Colluding(..) | Strategy::Sybil(..) => {
                assert!(found.lies > 10 && found.refunded > 0, "{found:?}");
            }
            Strategy::Cheating(1_000_000, OnDraw::Reports) => {
                // One report in a run; the other drawn lies it does not show.
                assert!((1..=EFFORT.runs).contains(&found.memory_faults) && found.lies == 0, "{found:?}");
                assert!(found.missed > 10, "{found:?}");
            }
            _ => {}
        }
    }
}

/// Row 40: the stake of many is worth no more in many hands, and one hand loses nothing by it: auditors are drawn by stake.
#[test]
fn splitting_a_stake_brings_nothing() {
    let found = compared(Strategy::Sybil(10, 0), &Rules::default(), &established(), EFFORT);
    assert!(found.difference.mean.abs() < 0.02 * found.honest.mean, "{found:?}");
}

/// A lie that is drawn and not disclosed costs pay, and no stake; without that it would not be told apart from honesty.
#[test]
fn hiding_what_is_drawn_does_not_pay() {
    let market = Market { operators: 5, jobs_per_epoch: 100, ..established() };
    let found = |audit_miss_bps, share| {
        let rules = Rules { audit_miss_bps, ..Rules::default() };
        let strategy = Strategy::Cheating(share, OnDraw::Withholds);
        compared(strategy, &rules, &market, Effort { jobs: 20_000, ..EFFORT })
    };
    for share in [100_000, PPM] {
        let (free, dear) = (found(0, share), found(Rules::default().audit_miss_bps, share));
        assert!(free.missed > 100 && free.lies == 0 && dear.lies == 0, "no lie is ever proved: {free:?}");
        assert_eq!(dear.slashed, 0, "no stake without a verdict: {dear:?}");
        assert!(dear.difference.negative() && dear.difference.mean < free.difference.mean, "{dear:?}");
    }
}

/// A night's absence costs an honest operator less than a day's pay, whenever it comes, and nothing of its stake.
#[test]
fn a_night_down_costs_little_pay_and_no_stake() {
    let found = night_run(&Rules::default(), &Market::default(), 20, 1);
    let found = found.unwrap_or_else(|broken| panic!("{broken}"));
    assert!(found.missed.mean > 0.0, "{found:?}");
    assert!(found.forfeited.mean < 0.3 * found.daily && found.forfeited_most < found.daily, "{found:?}");
}

/// Pay waits for audits, and all of it comes: with a stake that is far too small for what it serves, too.
#[test]
fn a_small_stake_with_many_orders_is_paid_in_the_end() {
    let market = Market { operators: 1, jobs_per_epoch: 2_000, bond: 10_000_000_000, ..established() };
    let outcome = ran(&Rules::default(), &market, Honest, vec![], 40_000);
    let (tally, rules) = (&outcome.tallies[0], Rules::default());
    let advance = rules.cap(market.bond, rules.rate_ppm(market.score));
    assert!(tally.unpaid_most > 20 * advance, "the cap binds: {tally:?}");
    assert_eq!((tally.served, outcome.unserved), (40_000, 0));
    // What it is paid is 95 % of the mean price for each answer; it spends 40 % on computing, and little on audits.
    let each = outcome.profits[0] as f64 / tally.served as f64 / market.price as f64;
    assert!((0.45..0.56).contains(&each), "{each} of the price");
}

#[test]
fn a_rational_cheater_cheats_when_it_pays() {
    let rules = Rules::default();
    let share = |times| {
        let market = Market { bribe: times * Market::default().price, ..established() };
        best_share(&rules, &market, 0.02)
    };
    let break_even = rules.break_even_gain(Market::default().bond, Market::default().price, 0.02);
    let times = break_even / Market::default().price as f64;
    assert!((67.0..69.0).contains(&times), "{times}");
    assert_eq!((share(0), share(30)), (0, 0));
    assert!(share(100) > 0);
}

/// Row 39: whoever has all turns of the beacon is never drawn, until it has withheld as often as it may.
#[test]
fn a_beacon_in_one_hand_convicts_nobody() {
    let convicted = |beacon_ppm| {
        let market = Market { operators: 5, jobs_per_epoch: 100, beacon_ppm, ..established() };
        let cheater = Cheater { share_ppm: 100_000, on_draw: OnDraw::Shows };
        let tally = ran(&Rules::default(), &market, cheater, vec![], 40_000).tallies.swap_remove(0);
        (tally.lies, tally.withheld_blocks)
    };
    let ((fair, none), (half, some), (whole, many)) = (convicted(0), convicted(500_000), convicted(PPM));
    assert_eq!((none, whole), (0, 0));
    assert!(fair > 0 && half > 0 && some > 0 && many > 0, "{fair} {half}; {some} {many}");
}

#[test]
fn estimates_have_students_width() {
    let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    // 2.571 × √(3.5 ÷ 6)
    assert!((estimate.mean - 3.5).abs() < 1e-9 && (estimate.half_width - 1.963).abs() < 0.03, "{estimate:?}");
    assert!(Estimate::of(&[1.0]).half_width.is_infinite());
    assert!(Estimate::of(&[-2.0, -2.1, -1.9]).negative() && Estimate::of(&[2.0, 2.1, 1.9]).positive());
}

#[test]
fn sweeps_say_where_honesty_stops_paying() {
    let effort = Effort { jobs: 2_000, runs: 4, seed: 3 };
    let all =
        sweeps(&Rules::default(), &Market::default(), &effort).unwrap_or_else(|broken| panic!("{broken}"));
    let formula = |name: &str, at: usize| {
        let sweep = all.iter().find(|sweep| sweep.name == name).unwrap_or_else(|| panic!("no sweep {name}"));
        sweep.points[at].formula.unwrap_or_else(|| panic!("{name} has a formula"))
    };
    for (name, pays, does_not) in [
        ("audit rate", 0, 1),
        ("bond of an operator", 0, 4),
        ("bribe for each wrong answer", 4, 3),
        ("operators of 20 that collude", 6, 5),
        ("what a draw takes of pay that is not disclosed", 0, 4),
        ("bribe for each wrong answer, for who discloses no lie", 4, 2),
    ] {
        assert!(formula(name, pays) > 0.0 && formula(name, does_not) < 0.0, "{name}");
    }
    assert!(all.iter().all(|sweep| sweep.points.iter().all(|point| point.difference.half_width.is_finite())));
}
