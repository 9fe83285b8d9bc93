use super::*;
use crate::packets::frame::tests::udp;
use crate::packets::request::Impairment;

const MS: u64 = 1_000_000;

fn rule(source: &str, peer: Option<&str>, impairment: Impairment) -> Rule {
    Rule::parse(request::Rule {
        source: source.to_owned(),
        peers: peer.map(|cidr| vec![(cidr.to_owned(), 0)]),
        impairment,
    })
    .unwrap()
}

fn delay(source: &str, peer: Option<&str>, ms: u64) -> Rule {
    let impairment = Impairment {
        delay_us: ms * 1000,
        ..Impairment::default()
    };
    rule(source, peer, impairment)
}

fn scheduler(rules: Vec<Rule>) -> Scheduler {
    Scheduler::new(rules, Random::seeded(3))
}

/// Moments (ms) at which frames leave, by the host they go to.
fn run(scheduler: &mut Scheduler) -> Vec<(u64, u8)> {
    let mut left = Vec::new();
    while let Some(due) = scheduler.next_due() {
        while let Some(frame) = scheduler.pop(due) {
            left.push((due / MS, frame.destination.address as u8));
        }
    }
    left
}

#[test]
fn delays_of_two_rules_add_up_and_others_feel_one_or_none() {
    let mut scheduler = scheduler(vec![
        delay("a", Some("10.0.0.0/30"), 10),
        delay("b", Some("10.0.0.1/32"), 5),
    ]);
    for host in [1, 2, 9] {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    assert_eq!(run(&mut scheduler), [(0, 9), (10, 2), (15, 1)]);
    let counters: Vec<_> = scheduler
        .counters()
        .into_iter()
        .map(|(source, c)| (source, c.packets, c.delayed, c.delay_us_sum))
        .collect();
    assert_eq!(
        counters,
        [
            ("a".to_owned(), 2, 2, 20_000),
            ("b".to_owned(), 1, 1, 5_000)
        ]
    );
}

#[test]
fn frames_of_the_same_moment_keep_their_order() {
    let mut scheduler = scheduler(vec![delay("a", None, 10)]);
    for host in 0..100 {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    let left: Vec<u8> = run(&mut scheduler)
        .into_iter()
        .map(|(_, host)| host)
        .collect();
    assert_eq!(left, (0..100).collect::<Vec<u8>>());
}

#[test]
fn a_rule_that_stays_keeps_its_frames_and_one_that_goes_lets_them_go() {
    let mut scheduler = scheduler(vec![
        delay("gone", Some("10.0.0.1/32"), 10),
        delay("stays", Some("10.0.0.2/32"), 20),
    ]);
    for host in [1, 2] {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    let stays = delay("stays", Some("10.0.0.2/32"), 20);
    scheduler.replace(vec![delay("new", None, 1), stays], MS);
    assert_eq!(run(&mut scheduler), [(1, 1), (20, 2)]);
    let counters = scheduler.counters();
    assert_eq!((counters[0].1.packets, counters[1].1.packets), (0, 1));
}

#[test]
fn a_flush_gives_all_in_order() {
    let mut scheduler = scheduler(vec![
        delay("a", Some("10.0.0.1/32"), 10),
        delay("b", None, 5),
    ]);
    for host in [1, 2, 3] {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    let hosts = |frames: Vec<Frame>| -> Vec<u8> {
        frames
            .iter()
            .map(|frame| frame.destination.address as u8)
            .collect()
    };
    assert_eq!(hosts(scheduler.flush()), [2, 3, 1]);
    assert_eq!(scheduler.next_due(), None);
}

#[test]
fn a_copy_that_is_damaged_leaves_the_original_alone() {
    let mut scheduler = scheduler(vec![rule(
        "a",
        None,
        Impairment {
            duplicate: 100.0,
            corrupt: 50.0,
            ..Impairment::default()
        },
    )]);
    let mut damaged = 0;
    for _ in 0..1000 {
        let original = udp(1, 1, 64).bytes;
        scheduler.accept(udp(1, 1, 64), 0);
        while let Some(frame) = scheduler.pop(0) {
            damaged += u64::from(frame.bytes != original);
        }
    }
    let counters = scheduler.counters()[0].1;
    assert_eq!((counters.duplicated, counters.corrupted), (1000, damaged));
    assert!((900..1100).contains(&damaged), "{damaged}");
}

#[test]
fn a_delay_in_front_of_a_bucket_counts_once() {
    let mut scheduler = scheduler(vec![rule(
        "a",
        None,
        Impairment {
            delay_us: 10_000,
            bandwidth_rate: 64_000,
            bandwidth_buffer: 64,
            bandwidth_limit: 64 * 2,
            ..Impairment::default()
        },
    )]);
    for host in 1..=4 {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    // The bucket lets one go, holds two (1 ms each), and has no room for the fourth.
    assert_eq!(run(&mut scheduler), [(10, 1), (11, 2), (12, 3)]);
    let counters = scheduler.counters()[0].1;
    assert_eq!(
        (counters.packets, counters.delayed, counters.dropped),
        (4, 3, 1)
    );
    assert_eq!(counters.delay_us_sum, 33_000);
}

#[test]
fn bytes_are_counted_of_what_is_let_through_alone() {
    let bucket = Impairment {
        bandwidth_rate: 64_000,
        bandwidth_buffer: 64,
        bandwidth_limit: 64 * 2,
        ..Impairment::default()
    };
    let mut scheduler = scheduler(vec![rule("a", None, bucket), delay("b", None, 1)]);
    for host in 1..=4 {
        scheduler.accept(udp(host, 1, 64), 0);
    }
    assert_eq!(run(&mut scheduler).len(), 3);
    let counters = scheduler.counters();
    assert_eq!((counters[0].1.bytes, counters[1].1.bytes), (192, 192));
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_told() {
    let mut scheduler = scheduler(vec![delay("a", None, 10)]);
    let frames = ROOM / 60_000 + 10;
    for _ in 0..frames {
        scheduler.accept(udp(1, 1, 60_000), 0);
    }
    assert!(scheduler.unsent >= 10, "{}", scheduler.unsent);
    assert_eq!(
        run(&mut scheduler).len() as u64,
        frames as u64 - scheduler.unsent
    );
    scheduler.accept(udp(1, 1, 60_000), 0);
    assert_eq!(run(&mut scheduler).len(), 1);
}
