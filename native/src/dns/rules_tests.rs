use super::super::message::tests::query;
use super::*;

fn rule(source: &str, answer: Answer) -> request::Rule {
    request::Rule {
        source: source.to_owned(),
        target: "default/web".to_owned(),
        patterns: Vec::new(),
        types: Vec::new(),
        percent: 100.0,
        seed: None,
        answer,
        delay_us: 0,
        jitter_us: 0,
    }
}

fn code(source: &str, code: u8) -> request::Rule {
    rule(source, Answer::Code { code })
}

fn rules(asked: &[request::Rule]) -> Rules {
    Rules::new(asked, &Rules::default())
}

fn client() -> SocketAddr {
    "10.0.0.5:4711".parse().unwrap()
}

fn fate_by(rules: &Rules, name: &str, kind: u16, way: Way) -> Fate {
    let asked = query(name, kind);
    rules
        .decide(&Query::parse(&asked).unwrap(), client(), way, 0)
        .0
}

fn fate(rules: &Rules, name: &str, kind: u16) -> Fate {
    fate_by(rules, name, kind, Way::Datagram)
}

fn code_of(fate: Fate) -> u8 {
    match fate {
        Fate::Answered(answer) => answer[3] & 15,
        other => panic!("{other:?}"),
    }
}

fn counted(rules: &Rules, source: &str, what: &str) -> u64 {
    let mut all = rules.counters();
    let (_, counters) = all.find(|(name, _)| *name == source).unwrap();
    counters.state()[what].as_u64().unwrap()
}

#[test]
fn the_oldest_fault_that_fits_answers() {
    let mut narrow = code("a", 3);
    narrow.patterns = vec!["*.example.com".to_owned()];
    narrow.types = vec![A];
    let rules = rules(&[narrow, code("b", 2)]);
    assert_eq!(code_of(fate(&rules, "www.example.com", A)), 3);
    assert_eq!(code_of(fate(&rules, "www.example.com", AAAA)), 2);
    assert_eq!(code_of(fate(&rules, "example.org", A)), 2);
    assert_eq!(
        (counted(&rules, "a", "hit"), counted(&rules, "b", "hit")),
        (1, 2)
    );
}

#[test]
fn delays_add_up_until_somebody_answers() {
    let mut slow = rule("a", Answer::Relayed);
    slow.delay_us = 1000;
    let mut wrong = code("b", 2);
    wrong.delay_us = 500;
    let mut late = rule("c", Answer::Relayed);
    late.delay_us = 7;
    let rules = rules(&[slow, wrong, late]);
    let asked = query("a", A);
    let read = Query::parse(&asked).unwrap();
    let (fate, delays) = rules.decide(&read, client(), Way::Datagram, 0);
    assert_eq!(code_of(fate), 2);
    let lengths: Vec<u128> = delays.iter().map(|one| one.length.as_micros()).collect();
    assert_eq!(lengths, [1000, 500]);
    assert_eq!(counted(&rules, "c", "matched"), 0);
}

#[test]
fn jitter_stays_within_its_bounds_and_spreads() {
    let mut slow = rule("a", Answer::Relayed);
    (slow.delay_us, slow.jitter_us) = (1000, 400);
    let rules = rules(&[slow]);
    let lengths: Vec<u128> = (0..200)
        .map(|number| {
            let asked = query(&format!("n{number}"), A);
            let read = Query::parse(&asked).unwrap();
            let (_, delays) = rules.decide(&read, client(), Way::Datagram, 0);
            delays[0].length.as_micros()
        })
        .collect();
    assert!(lengths.iter().all(|length| (600..=1400).contains(length)));
    assert!(lengths.iter().any(|&length| length < 800));
    assert!(lengths.iter().any(|&length| length > 1200));
}

#[test]
fn a_share_of_the_queries_is_hit_and_a_copy_as_its_original() {
    let mut half = code("a", 2);
    half.percent = 30.0;
    let rules = rules(&[half]);
    let hit = |number: u32| fate(&rules, &format!("n{number}"), A) != Fate::Relayed;
    let first: Vec<bool> = (0..4000).map(hit).collect();
    let count = first.iter().filter(|&&one| one).count();
    assert!((1060..1340).contains(&count), "{count}");
    assert_eq!(first, (0..4000).map(hit).collect::<Vec<bool>>());
}

#[test]
fn with_a_seed_the_same_look_ups_are_hit_again() {
    let hits = |seed: u64, copies: usize| {
        let mut half = code("a", 2);
        (half.percent, half.seed) = (50.0, Some(seed));
        let rules = rules(&[half]);
        let hit = |number: u32| {
            let fates = (0..copies).map(|_| fate(&rules, &format!("n{number}"), A));
            let hit: Vec<bool> = fates.map(|fate| fate != Fate::Relayed).collect();
            assert!(hit.iter().all(|&one| one == hit[0]));
            hit[0]
        };
        (0..1000).map(hit).collect::<Vec<bool>>()
    };
    assert_eq!(hits(7, 1), hits(7, 2));
    assert_ne!(hits(7, 1), hits(8, 1));
    let count = hits(7, 1).iter().filter(|&&one| one).count();
    assert!((430..570).contains(&count), "{count}");
}

#[test]
fn what_an_answer_cannot_say_is_left_to_the_server() {
    let truncated = rules(&[rule("a", Answer::Truncated)]);
    assert!(matches!(fate(&truncated, "a", A), Fate::Answered(_)));
    assert_eq!(fate_by(&truncated, "a", A, Way::Stream), Fate::Relayed);
    let random = rules(&[rule(
        "a",
        Answer::Addresses {
            addresses: Vec::new(),
        },
    )]);
    assert_eq!(fate(&random, "a", 15), Fate::Relayed);
    assert_eq!(
        fate(&rules(&[rule("a", Answer::Nothing)]), "a", 15),
        Fate::Swallowed
    );
}

#[test]
fn random_addresses_are_nobodys_and_differ() {
    let random = rules(&[rule(
        "a",
        Answer::Addresses {
            addresses: Vec::new(),
        },
    )]);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..50 {
        let Fate::Answered(answer) = fate(&random, &format!("n{number}"), A) else {
            panic!("not answered");
        };
        let octets: [u8; 4] = answer[answer.len() - 4..].try_into().unwrap();
        assert_eq!((octets[0], octets[1] & 0xfe), (198, 18));
        seen.insert(octets);
    }
    assert!(seen.len() > 40);
    let Fate::Answered(answer) = fate(&random, "a", AAAA) else {
        panic!("not answered");
    };
    assert_eq!(answer[answer.len() - 16..][..4], NOBODYS_SIX);
}

#[test]
fn counters_outlive_a_change_and_one_source_acts_once() {
    let before = rules(&[code("a", 2), code("a", 2)]);
    fate(&before, "a", A);
    assert_eq!(before.counters().count(), 1);
    let after = Rules::new(&[code("b", 3), code("a", 5)], &before);
    assert_eq!(counted(&after, "a", "answered"), 1);
    assert_eq!(counted(&after, "b", "answered"), 0);
    let kept = before.counters().next().unwrap().1.clone();
    assert!(after.has(&kept) && !rules(&[code("a", 2)]).has(&kept));
}
