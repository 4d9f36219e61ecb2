//! Creating, opening and listing repositories: what opens, what does not, and that each failure is told as what it is.

use super::*;
use crate::crypto::Argon2Params;
use crate::format::marker;
use crate::repo::fixture::{
    self, PASSWORD, TEN, config, init, memory, metered, no_cache, open, password,
};
use crate::store::metered::Operation;

async fn open_with(store: &Store, secret: &Secret) -> Result<Repository, Error> {
    Repository::open(store.clone(), no_cache(), secret).await
}

async fn only_slot(store: &Store, kind: layout::SlotKind) -> crate::id::ObjectKey {
    let names = keys::names(store).await.unwrap();
    let slot = names.iter().find_map(|name| match name {
        KeyName::Slot(slot) if slot.kind == kind => Some(layout::slot(*slot)),
        _ => None,
    });
    slot.unwrap()
}

async fn overwrite(store: &Store, key: &crate::id::ObjectKey, change: impl FnOnce(&mut Vec<u8>)) {
    let (bytes, _) = store.get(key, 1 << 20).await.unwrap();
    let mut bytes = bytes.to_vec();
    change(&mut bytes);
    store.put(key, Body::Bytes(bytes.into())).await.unwrap();
}

#[tokio::test]
async fn password_and_recovery_key_both_open_it_in_any_spelling() {
    let store = memory();
    let (made, recovery) = Repository::init_at_cost(
        store.clone(),
        no_cache(),
        &password(PASSWORD),
        config(),
        Argon2Params::FOR_TESTS,
    )
    .await
    .unwrap();
    let by_password = open(&store, no_cache()).await;
    assert_eq!(by_password.id(), made.id());
    assert_eq!(by_password.config(), config());
    let lower = recovery.to_lowercase().replace('-', "  ");
    for text in [recovery.to_string(), lower] {
        let opened = open_with(&store, &Secret::Recovery(text.into()))
            .await
            .unwrap();
        assert_eq!(opened.id(), made.id());
    }
}

#[tokio::test]
async fn each_way_not_to_open_is_told_apart() {
    let store = memory();
    let empty = open_with(&store, &password(PASSWORD)).await;
    assert!(matches!(empty, Err(Error::NoRepository(_))));
    init(&store).await;

    let wrong = open_with(&store, &password("incorrect horse")).await;
    assert!(matches!(wrong, Err(Error::WrongPassword(_))));
    let mistyped = open_with(&store, &Secret::Recovery("AAAA-BBBB".to_owned().into())).await;
    assert!(matches!(mistyped, Err(Error::BadRecoveryKey(_))));
    let other_key = RecoveryKey::random().to_text();
    let other = open_with(&store, &Secret::Recovery(other_key)).await;
    assert!(matches!(other, Err(Error::WrongPassword(_))));

    let (marker, _) = store.get(&layout::format(), 1024).await.unwrap();
    store.delete(&layout::format()).await.unwrap();
    let lost = open_with(&store, &password(PASSWORD)).await;
    assert!(matches!(lost, Err(Error::Missing { object }) if object == layout::format()));
    store
        .put(&layout::format(), Body::Bytes(marker))
        .await
        .unwrap();

    let slot = only_slot(&store, layout::SlotKind::Password).await;
    overwrite(&store, &slot, |bytes| *bytes.last_mut().unwrap() ^= 1).await;
    let damaged = open_with(&store, &password(PASSWORD)).await;
    assert!(matches!(damaged, Err(Error::Damaged { object, .. }) if object == slot));
}

#[tokio::test]
async fn no_flipped_bit_of_format_or_slot_goes_unnoticed() {
    let store = memory();
    let id = init(&store).await.id();
    let slot = only_slot(&store, layout::SlotKind::Password).await;
    for key in [layout::format(), slot] {
        let (whole, _) = store.get(&key, 1 << 20).await.unwrap();
        for at in 0..whole.len() {
            overwrite(&store, &key, |bytes| bytes[at] ^= 1 << (at % 8)).await;
            let opened = open_with(&store, &password(PASSWORD)).await;
            assert!(opened.is_err(), "byte {at} of {key}");
            store.put(&key, Body::Bytes(whole.clone())).await.unwrap();
        }
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            overwrite(&store, &key, |bytes| bytes.truncate(len)).await;
            let opened = open_with(&store, &password(PASSWORD)).await;
            assert!(opened.is_err(), "{key} cut to {len}");
            store.put(&key, Body::Bytes(whole.clone())).await.unwrap();
        }
    }
    assert_eq!(open(&store, no_cache()).await.id(), id);
}

#[tokio::test]
async fn a_damaged_slot_leaves_the_other_slots_working() {
    let store = memory();
    let repository = init(&store).await;
    repository
        .add_password(&"another".to_owned().into())
        .await
        .unwrap();
    for slot in repository.slots().await.unwrap() {
        let key = layout::slot(slot);
        let (whole, _) = store.get(&key, 1 << 20).await.unwrap();
        overwrite(&store, &key, |bytes| bytes[60] ^= 1).await;
        let opens = [
            open_with(&store, &password(PASSWORD)).await.is_ok(),
            open_with(&store, &password("another")).await.is_ok(),
        ];
        assert!(opens.contains(&true), "{key}");
        store.put(&key, Body::Bytes(whole)).await.unwrap();
    }
}

#[tokio::test]
async fn a_slot_of_another_repository_opens_nothing_here() {
    let (mine, theirs) = (memory(), memory());
    init(&mine).await;
    init(&theirs).await;
    let slot = only_slot(&theirs, layout::SlotKind::Password).await;
    let (bytes, _) = theirs.get(&slot, 1 << 20).await.unwrap();
    let own = only_slot(&mine, layout::SlotKind::Password).await;
    mine.delete(&own).await.unwrap();
    mine.put(&slot, Body::Bytes(bytes.clone())).await.unwrap();
    let opened = open_with(&mine, &password(PASSWORD)).await;
    assert!(matches!(opened, Err(Error::WrongPassword(_))));
    // Nor does it under another name, in its own.
    theirs.delete(&slot).await.unwrap();
    theirs.put(&own, Body::Bytes(bytes)).await.unwrap();
    assert!(open_with(&theirs, &password(PASSWORD)).await.is_err());
}

#[tokio::test]
async fn slots_that_are_too_many_to_try_are_said_and_not_taken_for_a_wrong_password() {
    let store = memory();
    init(&store).await;
    let own = only_slot(&store, layout::SlotKind::Password).await;
    let (whole, _) = store.get(&own, 1 << 20).await.unwrap();
    store.delete(&own).await.unwrap();
    for id in 0..33u8 {
        let name = layout::slot(layout::SlotName {
            kind: layout::SlotKind::Password,
            id: [id; 8],
        });
        store
            .put(&name, Body::Bytes(whole.slice(..40)))
            .await
            .unwrap();
    }
    let opened = open_with(&store, &password(PASSWORD)).await;
    assert!(matches!(
        opened,
        Err(Error::TooManySlots {
            tried: 32,
            untried: 1,
            ..
        })
    ));
}

#[tokio::test]
async fn what_a_planted_slot_would_cost_is_not_spent() {
    let store = memory();
    init(&store).await;
    let slot = only_slot(&store, layout::SlotKind::Password).await;
    overwrite(&store, &slot, |bytes| {
        // 4 TiB of memory, and a checksum that fits: anybody who can write to the store can plant this.
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        let checked = bytes.len() - marker::CHECKSUM_LEN;
        let sum = marker::checksum(&bytes[..checked]);
        bytes[checked..].copy_from_slice(&sum);
    })
    .await;
    let opened = open_with(&store, &password(PASSWORD)).await;
    assert!(matches!(opened, Err(Error::SlotTooCostly { object, .. }) if object == slot));
}

#[tokio::test]
async fn a_second_creation_is_refused_and_harms_nothing() {
    let store = memory();
    let first = init(&store).await.id();
    let again = Repository::init(store.clone(), no_cache(), &password("x"), config()).await;
    assert!(matches!(again, Err(Error::AlreadyThere(_))));
    assert_eq!(open(&store, no_cache()).await.id(), first);
}

#[tokio::test]
async fn of_creations_at_the_same_time_one_wins_and_its_keys_open_it() {
    for _ in 0..20 {
        let store = memory();
        let cost = Argon2Params::FOR_TESTS;
        let secrets = [password("a"), password("b"), password("c")];
        let inits = secrets.iter().map(|secret| {
            Repository::init_at_cost(store.clone(), no_cache(), secret, config(), cost)
        });
        let outcomes = futures::future::join_all(inits).await;
        let winners: Vec<_> = (0..3).filter(|&n| outcomes[n].is_ok()).collect();
        assert_eq!(winners.len(), 1);
        assert!(open_with(&store, &secrets[winners[0]]).await.is_ok());
    }
}

#[tokio::test]
async fn a_creation_cut_short_can_be_done_again_and_a_lost_format_object_cannot_be_papered_over() {
    let store = memory();
    let repository = init(&store).await;
    store.delete(&layout::format()).await.unwrap();
    init(&store).await;
    assert_ne!(open(&store, no_cache()).await.id(), repository.id());

    let store = memory();
    fixture::volume(&store).await;
    store.delete(&layout::format()).await.unwrap();
    let over = Repository::init(store.clone(), no_cache(), &password("x"), config()).await;
    assert!(matches!(over, Err(Error::Missing { .. })));
}

#[tokio::test]
async fn volumes_are_listed_by_name_and_names_are_unique() {
    let store = memory();
    let repository = init(&store).await;
    assert_eq!(repository.volumes().await.unwrap(), []);
    let now = Stamp(fixture::TEN);
    let b = repository.create_volume("b", now).await.unwrap();
    let a = repository.create_volume("a", now).await.unwrap();
    assert_eq!(repository.volumes().await.unwrap(), [a.clone(), b.clone()]);
    for bad in ["a", "", "line\nbreak", &"x".repeat(256)] {
        let made = repository.create_volume(bad, now).await;
        assert!(matches!(made, Err(Error::Invalid(_))), "{bad:?}");
    }
    let other = open(&store, no_cache()).await;
    assert_eq!(other.volumes().await.unwrap(), [a.clone(), b]);
    assert_eq!(other.volume(a.id).await.unwrap().info(), &a);
    let none = other.volume(VolumeId([0; 16])).await;
    assert!(matches!(none, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn a_volume_made_by_another_process_is_seen_by_the_next_listing() {
    let store = memory();
    let (one, other) = (init(&store).await, open(&store, no_cache()).await);
    assert!(other.volumes().await.unwrap().is_empty());
    let made = one.create_volume("docs", Stamp(1)).await.unwrap();
    assert_eq!(other.volumes().await.unwrap(), [made]);
}

#[tokio::test]
async fn a_damaged_volume_key_takes_only_its_own_volume_away() {
    let store = memory();
    let repository = init(&store).await;
    let broken = repository.create_volume("broken", Stamp(1)).await.unwrap();
    let whole = repository.create_volume("whole", Stamp(1)).await.unwrap();
    let key = layout::volume_key(broken.id, 0);
    let (bytes, _) = store.get(&key, 1 << 20).await.unwrap();
    for at in 0..bytes.len() {
        overwrite(&store, &key, |bytes| bytes[at] ^= 1 << (at % 8)).await;
        let opened = open(&store, no_cache()).await;
        let (volumes, damage) = opened.volumes_and_damage().await.unwrap();
        assert_eq!(volumes, std::slice::from_ref(&whole), "byte {at}");
        assert!(matches!(&damage[..], [Error::Damaged { object, .. }] if *object == key));
        assert!(opened.volumes().await.is_err());
        assert!(opened.volume(broken.id).await.is_err());
        assert!(opened.volume(whole.id).await.is_ok());
        store.put(&key, Body::Bytes(bytes.clone())).await.unwrap();
    }
    // One volume's key under another's name is no key of that other.
    let (theirs, _) = store
        .get(&layout::volume_key(whole.id, 0), 1 << 20)
        .await
        .unwrap();
    store.put(&key, Body::Bytes(theirs)).await.unwrap();
    assert!(
        open(&store, no_cache())
            .await
            .volume(broken.id)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn slots_come_and_go_without_touching_data_but_never_the_last() {
    let store = memory();
    let repository = init(&store).await;
    let (name, recovery) = repository.add_recovery().await.unwrap();
    repository.remove_slot(name).await.unwrap();
    let gone = open_with(&store, &Secret::Recovery(recovery)).await;
    assert!(matches!(gone, Err(Error::WrongPassword(_))));
    assert!(matches!(
        repository.remove_slot(name).await,
        Err(Error::NotFound(_))
    ));

    let slots = repository.slots().await.unwrap();
    assert_eq!(slots.len(), 2);
    repository.remove_slot(slots[0]).await.unwrap();
    let last = repository.remove_slot(slots[1]).await;
    assert!(matches!(last, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn opening_a_volume_by_its_id_lists_the_keys_once() {
    let store = memory();
    let id = fixture::volume(&store).await.info().id;
    let (counted, meter) = metered(&store);
    let repository = open(&counted, no_cache()).await;
    repository.volume(id).await.unwrap();
    assert_eq!(meter.usage(Operation::List).requests, 1);
    let later = open(&store, no_cache()).await;
    let made = later.create_volume("later", Stamp(TEN)).await.unwrap();

    // Nor are they when a spool is laid over the store, which is how a snapshot is mounted.
    let (counted, meter) = metered(&store);
    let beneath = open(&counted, no_cache()).await;
    let through = beneath.through(counted.clone());
    assert_eq!(through.volumes().await.unwrap().len(), 2);
    through.volume(id).await.unwrap();
    let of_keys = (1, 4);
    let asked = |operation| meter.usage(operation).requests;
    assert_eq!((asked(Operation::List), asked(Operation::Get)), of_keys);

    assert_eq!(repository.volume(made.id).await.unwrap().info(), &made);
}
