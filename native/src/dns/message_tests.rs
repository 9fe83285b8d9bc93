use super::*;

/// A query with id 7 and recursion desired.
pub fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut out = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

fn with_edns(mut query: Vec<u8>, options: &[u8]) -> Vec<u8> {
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0x80, 0]);
    query.extend_from_slice(&(options.len() as u16).to_be_bytes());
    query.extend_from_slice(options);
    query
}

#[test]
fn a_question_is_read_in_lower_case() {
    let asked = query("WWW.Example.org", AAAA);
    let read = Query::parse(&asked).unwrap();
    assert_eq!((read.id, read.kind), (7, AAAA));
    assert_eq!(read.name, b"www.example.org");
    assert_eq!(Query::parse(&query("", 2)).unwrap().name, b"");
}

#[test]
fn what_is_no_single_question_is_left_alone() {
    let good = query("example.org", A);
    for at in 0..good.len() {
        assert_eq!(Query::parse(&good[..at]), None, "cut after {at} bytes");
    }
    for (at, value) in [(2, 0x80), (2, 0x28), (5, 2), (5, 0), (7, 1), (11, 1)] {
        let mut odd = good.clone();
        odd[at] = value;
        assert_eq!(Query::parse(&odd), None, "byte {at} is {value:#x}");
    }
    let mut pointer = good.clone();
    pointer[12] = 0xc0;
    assert_eq!(Query::parse(&pointer), None);
    let mut chaos = good;
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(Query::parse(&chaos), None);
    assert_eq!(Query::parse(&query(&["a"; 200].join("."), A)), None);
}

#[test]
fn what_a_client_of_dns_says_is_told_from_everything_else() {
    let dns = |flags: u16, counts: [u16; 4]| {
        let mut start = vec![0, 7];
        for part in [&[flags][..], &counts].concat() {
            start.extend_from_slice(&part.to_be_bytes());
        }
        start
    };
    for (flags, counts) in [
        (0x0100, [1, 0, 0, 1]),
        (0x0100, [2, 0, 0, 0]), // two questions
        (0x0100, [0, 0, 0, 1]), // none, for a cookie
        (0x2400, [1, 1, 0, 0]), // NOTIFY
        (0x2800, [1, 9, 9, 1]), // UPDATE
        (0x3000, [0, 0, 0, 0]), // DSO
    ] {
        assert!(begins_as_request(&dns(flags, counts)), "{flags:#x}");
    }
    for (flags, counts) in [(0x8100, [1, 0, 0, 0]), (0x0100, [2, 1, 0, 0])] {
        assert!(!begins_as_request(&dns(flags, counts)), "{flags:#x}");
    }
    let foreign: [&[u8]; 6] = [
        b"GET / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"SSH-2.0-OpenSSH",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00",
        b"\x16\x03\x01\x06\x28\x01\x00\x06\x24\x03\x03\x00\x00\x00",
        b"\0\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for stream in foreign {
        assert!(!begins_as_request(&stream[2..]), "{stream:?}");
    }
}

#[test]
fn an_answer_repeats_id_question_and_wishes() {
    let asked = query("Ab.c", A);
    let said = Query::parse(&asked).unwrap().answer(&Says::Code(2), 512);
    assert_eq!(said[..12], [0, 7, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(said[12..], asked[12..]);
    let said = Query::parse(&asked).unwrap().answer(&Says::Truncated, 512);
    assert_eq!(said[2] & 2, 2);
}

#[test]
fn only_addresses_of_the_family_that_was_asked_for_are_told() {
    let both = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let asked = query("a", A);
    let said = Query::parse(&asked)
        .unwrap()
        .answer(&Says::Addresses(&both), 512);
    assert_eq!(said[7], 1);
    assert_eq!(
        said[asked.len()..],
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1]
    );
    let asked = query("a", AAAA);
    let said = Query::parse(&asked)
        .unwrap()
        .answer(&Says::Addresses(&both), 512);
    assert!(said.ends_with(&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
}

#[test]
fn edns_is_answered_with_edns_and_a_cookie_with_itself() {
    let asked = with_edns(query("a", A), &[]);
    let said = Query::parse(&asked).unwrap().answer(&Says::Code(3), 512);
    assert_eq!(said[11], 1);
    assert!(said.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]));
    let whole: Vec<u8> = [&[0, 10, 0, 16][..], &[5; 16]].concat();
    let asked = with_edns(query("a", A), &whole);
    let said = Query::parse(&asked).unwrap().answer(&Says::Code(3), 512);
    assert!(said.ends_with(&whole));
    let half: Vec<u8> = [&[0, 10, 0, 8][..], &[5; 8]].concat();
    let asked = with_edns(query("a", A), &half);
    let said = Query::parse(&asked).unwrap().answer(&Says::Code(3), 512);
    assert!(said.ends_with(&[0, 0]));
}

#[test]
fn any_garbage_is_survived() {
    let mut state = 1u64;
    for round in 0..20_000 {
        let mut bytes = with_edns(query("www.example.org", A), &[0, 10, 0, 3, 1, 2, 3]);
        for _ in 0..1 + round % 5 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(99);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 24) as u8;
        }
        bytes.truncate(bytes.len() - (round % 7) as usize);
        if let Some(read) = Query::parse(&bytes) {
            assert!(read.answer(&Says::Code(2), 512).len() >= HEADER);
        }
    }
}

#[test]
fn what_does_not_fit_in_a_datagram_is_left_out_and_said_to_be() {
    let many: Vec<IpAddr> = (0..5000)
        .map(|number| std::net::Ipv4Addr::from(0xc633_6400 + number).into())
        .collect();
    let says = Says::Addresses(&many);
    for (asked, size) in [
        (query("www.example.org", A), 512),
        (with_edns(query("www.example.org", A), &[]), 4096),
    ] {
        let read = Query::parse(&asked).unwrap();
        let said = read.answer(&says, read.datagram_size());
        assert_eq!(said[2] & 2, 2);
        assert!((size - 16..=size).contains(&said.len()), "{}", said.len());
        let whole = read.answer(&Says::Addresses(&many[..10]), read.datagram_size());
        assert_eq!((whole[2] & 2, whole[7]), (0, 10));
        let said = read.answer(&says, usize::MAX);
        assert!((65519..=65535).contains(&said.len()), "{}", said.len());
    }
}
