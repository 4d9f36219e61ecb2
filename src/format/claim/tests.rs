//! Both bodies round-trip and refuse whatever they did not write.

use super::*;

fn claim() -> Claim {
    Claim {
        name: ClaimName {
            generation: Generation(7),
            era: Era(2),
            base_seq: Seq(41),
            session: SessionId([9; 8]),
        },
        base_tag: Some(Tag([5; 32])),
        made: Stamp(1_800_000_000_000),
        owner: "host:/state".into(),
        adopted: vec![SessionId([1; 8]), SessionId([2; 8])],
    }
}

fn lease() -> Lease {
    Lease {
        generation: Generation(7),
        session: SessionId([9; 8]),
        owner: "höst:/state".into(),
        since: Stamp(1),
        expires: Stamp(2),
    }
}

#[test]
fn both_are_read_back_as_written() {
    assert_eq!(Claim::decode(&claim().encode()), Ok(claim()));
    assert_eq!(Lease::decode(&lease().encode()), Ok(lease()));
    let first = Claim {
        base_tag: None,
        adopted: vec![],
        ..claim()
    };
    assert_eq!(Claim::decode(&first.encode()), Ok(first));
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    let (claim, lease) = (claim().encode(), lease().encode());
    for len in 0..claim.len() {
        assert_eq!(Claim::decode(&claim[..len]), Err(Error::Malformed));
    }
    for len in 0..lease.len() {
        assert_eq!(Lease::decode(&lease[..len]), Err(Error::Malformed));
    }
    assert_eq!(
        Claim::decode(&[&claim[..], &[0]].concat()),
        Err(Error::Malformed)
    );
    assert_eq!(
        Lease::decode(&[&lease[..], &[0]].concat()),
        Err(Error::Malformed)
    );
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut bytes = claim().encode();
    bytes[0] = 2;
    assert_eq!(Claim::decode(&bytes), Err(Error::Newer(2)));
    bytes[0] = 0;
    assert_eq!(Claim::decode(&bytes), Err(Error::Malformed));
}

#[test]
fn what_is_too_long_is_cut_the_same_way_each_time() {
    let long = "é".repeat(OWNER_LEN_MAX);
    let mut claim = claim();
    claim.owner = long.clone();
    claim.adopted = vec![SessionId([3; 8]); ADOPTED_MAX + 5];
    let bytes = claim.encode();
    assert!(bytes.len() <= BODY_LEN_MAX);
    let read = Claim::decode(&bytes).unwrap();
    assert_eq!(read.owner, owner_text(&long));
    assert_eq!(read.adopted.len(), ADOPTED_MAX);
}
