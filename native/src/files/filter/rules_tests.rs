use std::time::Duration;

use serde_json::{json, Value};

use super::{Method, Random, Rules, Volume};

fn volume(rules: Value) -> Volume {
    serde_json::from_value(json!({"path": "/data", "rules": rules})).unwrap()
}

fn fitting(rules: Value, path: &str) -> u64 {
    Rules::new(&volume(rules))
        .ok()
        .unwrap()
        .now()
        .fitting(path.as_bytes())
}

#[test]
fn paths_are_those_of_the_target() {
    for (rule, path, wanted) in [
        (json!({}), "", 1),
        (json!({}), "a/b", 1),
        (json!({"path": "/data/*"}), "a", 1),
        (json!({"path": "/data/*"}), "a/b", 0),
        (json!({"path": "/data/**"}), "a/b", 1),
        (json!({"path": "/other/**"}), "a", 0),
        (json!({"below": "/data/a"}), "a", 1),
        (json!({"below": "/data/a"}), "a/b", 1),
        (json!({"below": "/data/a"}), "ab", 0),
        (json!({"below": "/data/a/"}), "a/b", 1),
        (json!({"below": "/data/a"}), "", 0),
        (json!({"below": "/data/a", "path": "/**/c"}), "a/c", 1),
        (json!({"below": "/data/a", "path": "/**/c"}), "c", 0),
    ] {
        assert_eq!(fitting(json!([rule]), path), wanted, "{rule} on {path}");
    }
}

#[test]
fn each_rule_has_its_bit() {
    let rules = json!([{"path": "/data/a"}, {"path": "/data/b"}, {}]);
    assert_eq!(fitting(rules.clone(), "a"), 0b101);
    assert_eq!(fitting(rules, "b"), 0b110);
}

#[test]
fn a_request_waits_for_all_latencies_and_fails_with_the_first_error() {
    let rules = json!([
        {"source": "one", "latency_us": 10, "methods": ["read"]},
        {"source": "other", "latency_us": 100, "methods": ["write"]},
        {"source": "two", "latency_us": 1000, "errno": 5},
        {"source": "three", "latency_us": 10000, "errno": 6},
        {"source": "four", "errno": 7},
    ]);
    let rules = Rules::new(&volume(rules)).ok().unwrap();
    let decision = rules
        .now()
        .decide(Method::Read, u64::MAX, &mut Random::seeded(1));
    assert_eq!(decision.delay, Duration::from_micros(11_010));
    assert_eq!(decision.errno, Some(5));
    let counters = rules.counters();
    assert_eq!(
        (counters["one"].delayed, counters["one"].delay_us_sum),
        (1, 10)
    );
    assert_eq!((counters["two"].failed, counters["two"].matched), (1, 1));
    assert_eq!(
        (counters["three"].delayed, counters["three"].failed),
        (1, 0)
    );
    assert_eq!(
        (counters["other"].matched, counters["four"].matched),
        (0, 0)
    );
}

#[test]
fn the_kernel_serves_what_no_rule_wants_to_see() {
    for (rule, wanted) in [
        (json!({"latency_us": 1}), true),
        (json!({"latency_us": 1, "methods": ["read"]}), true),
        (
            json!({"latency_us": 1, "methods": ["fsync", "open"]}),
            false,
        ),
        (json!({"attributes": {"size": 1}}), false),
        (json!({"space": 1, "methods": ["open"]}), true),
        (json!({"power_loss": true}), true),
        (json!({"power_loss": false}), false),
    ] {
        let rules = Rules::new(&volume(json!([rule]))).ok().unwrap();
        assert_eq!(rules.now().need_data(1), wanted, "{rule}");
        assert!(!rules.now().need_data(0));
    }
}

#[test]
fn what_stays_keeps_its_counters_and_what_it_has_used() {
    let full = json!({"source": "full", "space": 10});
    let rules = Rules::new(&volume(json!([full]))).ok().unwrap();
    let now = rules.now();
    now.rules[0].budget.as_ref().unwrap().take(4);
    now.decide(Method::Write, 1, &mut Random::seeded(1));
    let both = json!([{"source": "new"}, full]);
    rules.replace(&volume(both)).ok().unwrap();
    assert_eq!(rules.now().rules[1].budget.as_ref().unwrap().left(), 6);
    assert_eq!(rules.counters()["full"].matched, 1);
    let before = rules.now().generation;
    rules
        .replace(&volume(json!([{"source": "new"}, full])))
        .ok()
        .unwrap();
    assert_eq!(rules.now().generation, before);
    let other = json!([{"source": "full", "space": 11}]);
    rules.replace(&volume(other)).ok().unwrap();
    assert_eq!(rules.now().rules[0].budget.as_ref().unwrap().left(), 11);
}

#[test]
fn a_part_of_the_requests_is_hit() {
    let rules = json!([{"source": "some", "percent": 25, "errno": 5}]);
    let rules = Rules::new(&volume(rules)).ok().unwrap();
    let mut random = Random::seeded(3);
    let now = rules.now();
    let hit = (0..10_000).filter(|_| now.decide(Method::Read, 1, &mut random).errno.is_some());
    assert!((2300..2700).contains(&hit.count()));
}
