//! Key slots: what opens them, and what does not.

use super::*;

const REPOSITORY: RepositoryId = RepositoryId([3; 16]);
const PASSWORD: NewSecret<'_> = NewSecret::Password("correct horse", Argon2Params::FOR_TESTS);

fn name() -> ObjectKey {
    ObjectKey::new("k/s-0011223344556677")
}

fn contents() -> SlotContents {
    SlotContents {
        key: RepositoryKey::random(),
        config: RepositoryConfig {
            block_len: 64 << 20,
            aes: AesKeyLen::Aes192,
            compression: Compression::Zstd(-3),
        },
        features: Features {
            required: 0,
            optional: 1 << 9,
        },
        unknown: vec![(900, b"from the future".to_vec())],
    }
}

fn open_with(bytes: &[u8], secret: OfferedSecret<'_>) -> Result<SlotContents, Error> {
    open(bytes, REPOSITORY, &name(), &secret)
}

/// Two keys are the same if they open the same volume.
fn same_key(a: &RepositoryKey, b: &RepositoryKey) -> bool {
    let record = record();
    let bytes = wrap_volume(REPOSITORY, &name(), a, &record, &VolumeKey::random());
    unwrap_volume(&bytes, REPOSITORY, &name(), b, record.volume, 0).is_ok()
}

fn record() -> VolumeRecord {
    VolumeRecord {
        volume: VolumeId([8; 16]),
        key_epoch: 0,
        name: "documents".to_owned(),
        created: Stamp(1_795_000_000_000),
        unknown: vec![(7, vec![1, 2, 3])],
    }
}

#[test]
fn a_password_slot_opens_with_its_password_only() {
    let contents = contents();
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents).unwrap();
    assert_eq!(
        kind(&slot).unwrap(),
        SlotKind::Password(Argon2Params::FOR_TESTS)
    );
    let opened = open_with(&slot, OfferedSecret::Password("correct horse")).unwrap();
    assert_eq!(opened.config, contents.config);
    assert_eq!(opened.features, contents.features);
    assert_eq!(opened.unknown, contents.unknown);
    assert!(same_key(&opened.key, &contents.key));
    for wrong in ["", "correct horsf", "correct horse ", "Correct horse"] {
        let refused = open_with(&slot, OfferedSecret::Password(wrong));
        assert!(matches!(refused, Err(Error::WrongSecret)));
    }
    let refused = open_with(&slot, OfferedSecret::Recovery(&RecoveryKey::random()));
    assert!(matches!(refused, Err(Error::OtherKind)));
}

#[test]
fn a_recovery_slot_opens_with_the_text_that_was_shown() {
    let key = RecoveryKey::random();
    let contents = contents();
    let slot = wrap(REPOSITORY, &name(), &NewSecret::Recovery(&key), &contents).unwrap();
    assert_eq!(kind(&slot).unwrap(), SlotKind::Recovery);
    let typed = RecoveryKey::parse(&key.to_text().to_lowercase()).unwrap();
    let opened = open_with(&slot, OfferedSecret::Recovery(&typed)).unwrap();
    assert!(same_key(&opened.key, &contents.key));
    let refused = open_with(&slot, OfferedSecret::Recovery(&RecoveryKey::random()));
    assert!(matches!(refused, Err(Error::WrongSecret)));
    let refused = open_with(&slot, OfferedSecret::Password("x"));
    assert!(matches!(refused, Err(Error::OtherKind)));
}

/// Damage must never look like a wrong password: somebody would throw the right one away.
#[test]
fn damage_is_told_from_a_wrong_password() {
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents()).unwrap();
    for at in 0..slot.len() {
        let mut damaged = slot.to_vec();
        damaged[at] ^= 4;
        let refused = open_with(&damaged, OfferedSecret::Password("correct horse"));
        assert!(matches!(refused, Err(Error::Damaged(_))), "byte {at}");
        let refused = open_with(&slot[..at], OfferedSecret::Password("correct horse"));
        assert!(matches!(refused, Err(Error::Damaged(_))), "cut at {at}");
    }
}

/// The checksum is no protection against purpose: with it made right again, the frame's tag must refuse.
#[test]
fn a_forged_slot_is_refused() {
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents()).unwrap();
    for at in 0..slot.len() - CHECKSUM_LEN {
        let mut forged = slot[..slot.len() - CHECKSUM_LEN].to_vec();
        forged[at] ^= 1;
        let sum = checksum(&forged);
        forged.extend(sum);
        let result = open_with(&forged, OfferedSecret::Password("correct horse"));
        assert!(result.is_err(), "byte {at}");
    }
}

#[test]
fn a_slot_belongs_to_its_name_and_repository() {
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents()).unwrap();
    let password = OfferedSecret::Password("correct horse");
    let other = ObjectKey::new("k/s-8899aabbccddeeff");
    assert!(open(&slot, REPOSITORY, &other, &password).is_err());
    assert!(open(&slot, RepositoryId([4; 16]), &name(), &password).is_err());
}

#[test]
fn a_slot_that_costs_too_much_is_refused_before_anything_is_spent() {
    let costly = Argon2Params {
        memory_kib: u32::MAX,
        ..Argon2Params::FOR_TESTS
    };
    let header = Header {
        kind: SlotKind::Password(costly),
        salt: [0; SALT_LEN],
    };
    let mut slot = header.encode().to_vec();
    slot.extend([0; 80]);
    let sum = checksum(&slot);
    slot.extend(sum);
    let refused = open_with(&slot, OfferedSecret::Password("x"));
    assert!(matches!(refused, Err(Error::Derivation(_))));
}

#[test]
fn a_slot_that_needs_a_newer_version_says_so() {
    let mut contents = contents();
    contents.features.required = 1 << 33;
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents).unwrap();
    let refused = open_with(&slot, OfferedSecret::Password("correct horse"));
    assert!(matches!(refused, Err(Error::NewerFormat(33))));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    for block_len in [0, 1000, 512 << 10, 128 << 20, (1 << 20) + 1] {
        let mut contents = contents();
        contents.config.block_len = block_len;
        let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents).unwrap();
        let refused = open_with(&slot, OfferedSecret::Password("correct horse"));
        assert!(matches!(refused, Err(Error::Damaged(_))), "{block_len}");
    }
}

/// They were written behind all that are known, and read again as out of order: a slot that a newer version wrote, changed by this one,
/// would not have opened any more.
#[test]
fn unknown_fields_are_written_back_where_their_type_belongs() {
    let unknown = vec![(0, b"first".to_vec()), (900, b"last".to_vec())];

    let contents = SlotContents {
        unknown: unknown.clone(),
        ..contents()
    };
    let bytes = encode_contents(&contents);
    let again = decode_contents(RepositoryKey::random(), &bytes).unwrap();
    assert_eq!(again.unknown, unknown);

    let record = VolumeRecord {
        unknown,
        ..record()
    };
    let again = decode_record(record.volume, record.key_epoch, &encode_record(&record));
    assert_eq!(again.unwrap(), record);
}

#[test]
fn a_volume_key_opens_under_its_own_name_epoch_and_repository_key() {
    let (under, key) = (RepositoryKey::random(), VolumeKey::random());
    let (record, name) = (record(), ObjectKey::new("k/v-08-0"));
    let bytes = wrap_volume(REPOSITORY, &name, &under, &record, &key);
    let open = |bytes: &[u8], repository, name: &ObjectKey, under, volume, epoch| {
        unwrap_volume(bytes, repository, name, under, volume, epoch)
    };
    let (opened, _) = open(&bytes, REPOSITORY, &name, &under, record.volume, 0).unwrap();
    assert_eq!(opened, record);

    let (other, other_key) = (ObjectKey::new("k/v-09-0"), RepositoryKey::random());
    let refused = [
        open(
            &bytes,
            RepositoryId([0; 16]),
            &name,
            &under,
            record.volume,
            0,
        ),
        open(&bytes, REPOSITORY, &other, &under, record.volume, 0),
        open(&bytes, REPOSITORY, &name, &other_key, record.volume, 0),
        open(&bytes, REPOSITORY, &name, &under, VolumeId([9; 16]), 0),
        open(&bytes, REPOSITORY, &name, &under, record.volume, 1),
    ];
    for (n, result) in refused.into_iter().enumerate() {
        assert!(matches!(result, Err(Error::Damaged(_))), "case {n}");
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 2;
        assert!(open(&damaged, REPOSITORY, &name, &under, record.volume, 0).is_err());
        assert!(open(&bytes[..at], REPOSITORY, &name, &under, record.volume, 0).is_err());
    }
}

#[test]
fn no_secret_stands_in_clear() {
    let slot = wrap(REPOSITORY, &name(), &PASSWORD, &contents()).unwrap();
    let volume = wrap_volume(
        REPOSITORY,
        &name(),
        &RepositoryKey::random(),
        &record(),
        &VolumeKey::random(),
    );
    for (bytes, secret) in [(&slot, &b"correct horse"[..]), (&volume, b"documents")] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret));
    }
}
