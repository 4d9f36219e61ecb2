//! The frame cipher against other people's results, and against misuse.

use cbc::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use sha2::Digest;
use zeroize::Zeroizing;

use super::cipher::Cbc;
use super::*;
use crate::compress::Compression;
use crate::format::frame::{Envelope, FrameKind};
use crate::id::{BlockClass, BlockId, FrameNo, ObjectKey, RepositoryId, SessionId, VolumeId};

const LENGTHS: [AesKeyLen; 3] = [AesKeyLen::Aes128, AesKeyLen::Aes192, AesKeyLen::Aes256];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn key_of(bytes: &[u8]) -> EncryptionKey {
    let mut key = [0; 32];
    key[..bytes.len()].copy_from_slice(bytes);
    EncryptionKey(Zeroizing::new(key))
}

/// IV, plaintext, PKCS#7 padding.
fn padded(iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let padding = 16 - plain.len() % 16;
    [&iv, plain, &vec![padding as u8; padding]].concat()
}

fn serial(len: AesKeyLen, key: &EncryptionKey, iv: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let iv = &iv.into();
    match len {
        AesKeyLen::Aes128 => {
            cbc::Encryptor::<aes::Aes128>::new(key.0[..16].try_into().unwrap(), iv)
                .encrypt_padded::<Pkcs7>(&mut padded_room(plain), plain.len())
                .unwrap()
                .to_vec()
        }
        AesKeyLen::Aes192 => {
            cbc::Encryptor::<aes::Aes192>::new(key.0[..24].try_into().unwrap(), iv)
                .encrypt_padded::<Pkcs7>(&mut padded_room(plain), plain.len())
                .unwrap()
                .to_vec()
        }
        AesKeyLen::Aes256 => cbc::Encryptor::<aes::Aes256>::new(key.0[..].try_into().unwrap(), iv)
            .encrypt_padded::<Pkcs7>(&mut padded_room(plain), plain.len())
            .unwrap()
            .to_vec(),
    }
}

fn padded_room(plain: &[u8]) -> Vec<u8> {
    [plain, &[0; 16]].concat()
}

/// Any number of frames of any lengths gives what the `cbc` crate gives for each alone.
#[test]
fn lanes_agree_with_the_serial_cipher() {
    for len in LENGTHS {
        let key = EncryptionKey::random();
        let cbc = Cbc::new(len, &key);
        for count in 0..=17 {
            // Lengths from empty to a few hundred blocks, neither sorted nor equal.
            let plains: Vec<Vec<u8>> = (0..count)
                .map(|n: usize| vec![n as u8; n * n * 2657 % 4099 + n % 3])
                .collect();
            let iv: [u8; 16] = random();
            let mut frames: Vec<Vec<u8>> = plains.iter().map(|p| padded(iv, p)).collect();
            let mut lanes: Vec<&mut [u8]> = frames.iter_mut().map(Vec::as_mut_slice).collect();
            cbc.encrypt(&mut lanes);
            for (frame, plain) in frames.iter().zip(&plains) {
                assert_eq!(frame[..16], iv);
                assert_eq!(frame[16..], serial(len, &key, iv, plain));
                let used = vec![7; 100];
                assert_eq!(cbc.decrypt(&iv, &frame[16..], used).as_ref(), Some(plain));
            }
        }
    }
}

#[test]
fn lanes_of_equal_length_and_frames_without_a_block() {
    let key = EncryptionKey::random();
    let cbc = Cbc::new(AesKeyLen::Aes256, &key);
    let mut frames: Vec<Vec<u8>> = (0..11u8).map(|n| padded([n; 16], &[n; 100])).collect();
    frames.push(vec![9; 16]);
    frames.push(Vec::new());
    let mut lanes: Vec<&mut [u8]> = frames.iter_mut().map(Vec::as_mut_slice).collect();
    cbc.encrypt(&mut lanes);
    for (n, frame) in (0..11u8).zip(&frames) {
        assert_eq!(
            frame[16..],
            serial(AesKeyLen::Aes256, &key, [n; 16], &[n; 100])
        );
    }
    assert_eq!(frames[11], [9; 16]);
}

/// NIST SP 800-38A, appendix F.2: four blocks under each key length (before padding).
#[test]
fn cbc_vectors_of_nist() {
    let iv = hex("000102030405060708090a0b0c0d0e0f");
    let plain = hex(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
         30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710",
    );
    let vectors = [
        (
            AesKeyLen::Aes128,
            "2b7e151628aed2a6abf7158809cf4f3c",
            "7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2
             73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7",
        ),
        (
            AesKeyLen::Aes192,
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a
             571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd",
        ),
        (
            AesKeyLen::Aes256,
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d
             39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b",
        ),
    ];
    for (len, key, expected) in vectors {
        let mut frame = [iv.clone(), plain.clone()].concat();
        Cbc::new(len, &key_of(&hex(key))).encrypt(&mut [&mut frame]);
        assert_eq!(frame[16..], hex(expected));
    }
}

/// RFC 7518, appendix B.1: AES_128_CBC_HMAC_SHA_256, the ciphertext with its PKCS#7 padding. (Its tag covers
/// another input than ours does; RFC 4231 checks ours below.)
#[test]
fn cbc_vector_of_rfc_7518() {
    let key = hex("101112131415161718191a1b1c1d1e1f");
    let iv = hex("1af38c2dc2b96ffdd86694092341bc04");
    let plain =
        b"A cipher system must not be required to be secret, and it must be able to fall into \
                  the hands of the enemy without inconvenience";
    let expected = hex(
        "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792f76bfe54b903a9c9
         a94ac9b47ad2655c5f10f9aef71427e2fc6f9b3f399a221489f16362c7032336
         09d45ac69864e3321cf82935ac4096c86e133314c54019e8ca7980dfa4b9cf1b
         384c486f3a54c51078158ee5d79de59fbd34d848b3d69550a67646344427ade5
         4b8851ffb598f7f80074b9473c82e2db",
    );
    let cbc = Cbc::new(AesKeyLen::Aes128, &key_of(&key));
    let mut frame = padded(iv.clone().try_into().unwrap(), plain);
    cbc.encrypt(&mut [&mut frame]);
    assert_eq!(frame[16..], expected);
    let opened = cbc.decrypt(&iv.try_into().unwrap(), &expected, Vec::new());
    assert_eq!(opened.as_deref(), Some(&plain[..]));
}

/// The tag of a frame is HMAC-SHA-256 over the 100 bytes of context that FORMAT.md lists, then IV and ciphertext:
/// computed here by hand from RFC 2104's definition, and that definition against RFC 4231's second case.
#[test]
fn tag_is_hmac_over_what_the_format_says() {
    assert_eq!(
        hmac(b"Jefe", b"what do ya want for nothing?"),
        hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")[..]
    );

    let name = ObjectKey::new("v/00/c/name");
    let frame = keys().block(id(3)).encrypt(
        FrameNo(5),
        FrameKind::Commit,
        Some(&name),
        vec![pack(b"hello")],
    );
    let bytes = frame[0].bytes();
    let derived = kdf::KeyPair::derive(&[0; 32], &[], &kdf::BLOCK, &id(3).to_bytes());
    let mut input = b"RWFSfrm1".to_vec();
    input.extend([1; 16]);
    input.extend([2; 16]);
    input.extend(id(3).to_bytes());
    input.extend(5u32.to_le_bytes());
    input.extend([3, 3, 0, 0]);
    input.extend(32u32.to_le_bytes());
    let name_hash: [u8; 32] = sha2::Sha256::digest(name.as_str()).into();
    input.extend(name_hash);
    input.extend(&bytes[..48]);
    assert_eq!(bytes.len(), 80);
    assert_eq!(bytes[48..], hmac(&*derived.mac.0, &input));
    assert_eq!(frame[0].tag().0, bytes[48..]);
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = sha2::Sha256::new_with_prefix(block.map(|b| b ^ 0x36)).chain_update(message);
    let outer = sha2::Sha256::new_with_prefix(block.map(|b| b ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// RFC 5869, appendix A.1, and the order of the two keys in a pair.
#[test]
fn derivation_is_hkdf_sha_256() {
    let mut okm = [0; 42];
    hkdf::Hkdf::<sha2::Sha256>::new(
        Some(&hex("000102030405060708090a0b0c")),
        &hex("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"),
    )
    .expand(&hex("f0f1f2f3f4f5f6f7f8f9"), &mut okm)
    .unwrap();
    assert_eq!(
        okm[..],
        hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    );

    // Extract with no salt, expand by hand: T(1) = HMAC(PRK, info | 1), T(2) = HMAC(PRK, T(1) | info | 2).
    let pair = kdf::KeyPair::derive(&[7; 32], &[], &kdf::BLOCK, &[9; 16]);
    let info = [&b"rewindfs/1/block"[..], &[9; 16]].concat();
    let prk = hmac(&[0; 32], &[7; 32]);
    let first = hmac(&prk, &[&info[..], &[1]].concat());
    let second = hmac(&prk, &[&first[..], &info, &[2]].concat());
    assert_eq!(*pair.encryption.0, first);
    assert_eq!(*pair.mac.0, second);
}

/// The derived keys in FORMAT.md's worked example.
#[test]
fn the_worked_examples_keys_are_what_the_document_says() {
    let document = include_str!("../format/FORMAT.md");
    let block = hex("00000100010203040506070809000000");
    let pair = kdf::KeyPair::derive(&[0; 32], &[], &kdf::BLOCK, &block);
    for (name, key) in [("AES   ", &pair.encryption.0), ("HMAC  ", &pair.mac.0)] {
        let line = document.lines().find_map(|line| line.strip_prefix(name));
        assert_eq!(hex(line.unwrap()), key[..]);
    }
}

fn keys() -> VolumeKeys {
    keys_with(AesKeyLen::Aes256, 0)
}

fn keys_with(aes: AesKeyLen, fill: u8) -> VolumeKeys {
    let key = VolumeKey(Zeroizing::new([fill; 32]));
    let (repository, volume) = (RepositoryId([1; 16]), VolumeId([2; 16]));
    VolumeKeys::new(repository, volume, aes, [(0, key)]).unwrap()
}

fn id(number: u32) -> BlockId {
    BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId([4; 8]),
        number,
    }
}

fn pack(plain: &[u8]) -> Envelope {
    Envelope::pack(plain, Compression::default())
}

fn encrypt_two(keys: &VolumeKeys) -> [Vec<u8>; 2] {
    let frames = vec![pack(b"first frame"), pack(b"other frame")];
    let encrypted = keys
        .block(id(1))
        .encrypt(FrameNo(0), FrameKind::Data, None, frames);
    [0, 1].map(|n: usize| encrypted[n].bytes().to_vec())
}

#[test]
fn every_suite_reads_back_what_it_wrote_and_no_other_suite_does() {
    for aes in LENGTHS {
        let [first, second] = encrypt_two(&keys_with(aes, 0));
        for other in LENGTHS {
            let cipher = keys_with(other, 0).block(id(1));
            let read = |n, bytes: &[u8]| cipher.decrypt(FrameNo(n), FrameKind::Data, None, bytes);
            if other == aes {
                assert_eq!(read(0, &first).unwrap(), b"first frame");
                assert_eq!(read(1, &second).unwrap(), b"other frame");
            } else {
                assert_eq!(read(0, &first), Err(Error::Unauthentic));
            }
        }
    }
}

#[test]
fn lengths_are_known_before_encryption() {
    for len in [0, 1, 3, 4, 5, 19, 20, 21, 4096, 100_000, 1 << 20] {
        let noise = random_padding(len);
        for plain in [vec![0; len], noise] {
            let envelope = pack(&plain);
            let (said, stored) = (envelope.encrypted_len() as usize, envelope.stored_len());
            let frames =
                keys()
                    .block(id(1))
                    .encrypt(FrameNo(0), FrameKind::Data, None, vec![envelope]);
            assert_eq!(frames[0].bytes().len(), said);
            assert!(stored <= plain.len());
            let cipher = keys().block(id(1));
            let read = cipher.decrypt(FrameNo(0), FrameKind::Data, None, frames[0].bytes());
            assert_eq!(read.unwrap(), plain);
        }
    }
}

#[test]
fn any_flipped_bit_of_a_frame_is_refused() {
    let [mut frame, _] = encrypt_two(&keys());
    let cipher = keys().block(id(1));
    for at in 0..frame.len() {
        for bit in 0..8 {
            frame[at] ^= 1 << bit;
            let refused = cipher.decrypt(FrameNo(0), FrameKind::Data, None, &frame);
            assert_eq!(refused, Err(Error::Unauthentic), "byte {at} bit {bit}");
            frame[at] ^= 1 << bit;
        }
    }
    assert!(
        cipher
            .decrypt(FrameNo(0), FrameKind::Data, None, &frame)
            .is_ok()
    );
}

#[test]
fn a_frame_cut_short_or_made_longer_is_refused() {
    let [frame, _] = encrypt_two(&keys());
    let cipher = keys().block(id(1));
    let refused = |bytes: &[u8]| {
        let result = cipher.decrypt(FrameNo(0), FrameKind::Data, None, bytes);
        assert_eq!(result, Err(Error::Unauthentic));
    };
    for len in 0..frame.len() {
        refused(&frame[..len]);
        refused(&frame[len + 1..]);
    }
    for more in [1, 15, 16, 32] {
        refused(&[&frame[..], &vec![0; more]].concat());
        refused(&[&vec![0; more], &frame[..]].concat());
    }
    refused(&vec![0; 3 << 20]);
}

#[test]
fn a_frame_in_another_place_is_refused() {
    let [frame, other] = encrypt_two(&keys());
    let name = ObjectKey::new("c/1");
    let refused = |cipher: BlockCipher, number, kind, object, bytes: &[u8]| {
        let result = cipher.decrypt(FrameNo(number), kind, object, bytes);
        assert_eq!(result, Err(Error::Unauthentic));
    };
    let here = || keys().block(id(1));
    refused(here(), 0, FrameKind::Data, None, &other);
    refused(here(), 1, FrameKind::Data, None, &frame);
    refused(here(), 0, FrameKind::Page, None, &frame);
    refused(here(), 0, FrameKind::Data, Some(&name), &frame);
    refused(keys().block(id(2)), 0, FrameKind::Data, None, &frame);
    refused(
        keys_with(AesKeyLen::Aes256, 1).block(id(1)),
        0,
        FrameKind::Data,
        None,
        &frame,
    );

    let key = || [(0, VolumeKey(Zeroizing::new([0; 32])))];
    let elsewhere = [
        (RepositoryId([9; 16]), VolumeId([2; 16])),
        (RepositoryId([1; 16]), VolumeId([9; 16])),
    ];
    for (repository, volume) in elsewhere {
        let keys = VolumeKeys::new(repository, volume, AesKeyLen::Aes256, key()).unwrap();
        refused(keys.block(id(1)), 0, FrameKind::Data, None, &frame);
    }
}

#[test]
fn a_commit_under_another_name_is_refused() {
    let (name, other) = (ObjectKey::new("v/x/c/1"), ObjectKey::new("v/x/c/2"));
    let cipher = keys().block(id(1));
    let frames = cipher.encrypt(
        FrameNo(0),
        FrameKind::Commit,
        Some(&name),
        vec![pack(b"body")],
    );
    let read = |object| cipher.decrypt(FrameNo(0), FrameKind::Commit, object, frames[0].bytes());
    assert_eq!(read(Some(&name)).unwrap(), b"body");
    assert_eq!(read(Some(&other)), Err(Error::Unauthentic));
    assert_eq!(read(None), Err(Error::Unauthentic));
}

#[test]
fn the_same_plaintext_never_looks_the_same_twice() {
    assert_ne!(encrypt_two(&keys()), encrypt_two(&keys()));
}

#[test]
fn objects_are_bound_to_their_kind_name_and_volume() {
    let (name, other) = (ObjectKey::new("v/x/lease"), ObjectKey::new("v/y/lease"));
    let keys = keys();
    let object = keys.encrypt_object(FrameKind::Lease, &name, b"mine until noon");
    let read = |keys: &VolumeKeys, kind, name, bytes: &[u8]| keys.decrypt_object(kind, name, bytes);
    let bytes = object.bytes().to_vec();
    assert_eq!(
        read(&keys, FrameKind::Lease, &name, &bytes).unwrap(),
        b"mine until noon"
    );
    assert!(read(&keys, FrameKind::Lease, &other, &bytes).is_err());
    assert!(read(&keys, FrameKind::Claim, &name, &bytes).is_err());
    assert!(
        read(
            &keys_with(AesKeyLen::Aes256, 1),
            FrameKind::Lease,
            &name,
            &bytes
        )
        .is_err()
    );
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(
            read(&keys, FrameKind::Lease, &name, &damaged).is_err(),
            "byte {at}"
        );
        assert!(read(&keys, FrameKind::Lease, &name, &bytes[..at]).is_err());
    }
    assert_eq!(object.tag().0, bytes[bytes.len() - 32..]);
}

#[test]
fn old_key_epochs_stay_readable_and_unknown_ones_are_named() {
    let old = encrypt_two(&keys());
    let both = [
        (0, VolumeKey(Zeroizing::new([0; 32]))),
        (1, VolumeKey::random()),
    ];
    let (repository, volume) = (RepositoryId([1; 16]), VolumeId([2; 16]));
    let rekeyed = VolumeKeys::new(repository, volume, AesKeyLen::Aes256, both).unwrap();
    assert_eq!(rekeyed.key_epoch(), 1);
    let read = rekeyed
        .block(id(1))
        .decrypt(FrameNo(0), FrameKind::Data, None, &old[0]);
    assert_eq!(read.unwrap(), b"first frame");
    assert_ne!(rekeyed.content_id(b"x"), keys().content_id(b"x"));
    assert_ne!(rekeyed.gear(), keys().gear());

    let newer = BlockId {
        key_epoch: 1,
        ..id(1)
    };
    let refused = keys()
        .block(newer)
        .decrypt(FrameNo(0), FrameKind::Data, None, &old[0]);
    assert_eq!(refused, Err(Error::NoKey(1)));
    assert!(VolumeKeys::new(repository, volume, AesKeyLen::Aes256, []).is_none());
}

#[test]
fn content_ids_are_keyed_and_differ_by_volume_key() {
    let (one, other) = (keys(), keys_with(AesKeyLen::Aes256, 1));
    assert_eq!(one.content_id(b"chunk"), one.content_id(b"chunk"));
    assert_ne!(one.content_id(b"chunk"), one.content_id(b"chunl"));
    assert_ne!(one.content_id(b"chunk"), other.content_id(b"chunk"));
    assert_ne!(one.gear(), other.gear());
}

/// A secret in a log is a secret lost.
#[test]
fn nothing_prints_a_key() {
    let secrets = [
        format!("{:?}", VolumeKey(Zeroizing::new([0xab; 32]))),
        format!("{:?}", RepositoryKey(Zeroizing::new([0xab; 32]))),
        format!("{:?}", EncryptionKey(Zeroizing::new([0xab; 32]))),
        format!("{:?}", MacKey(Zeroizing::new([0xab; 32]))),
        format!("{:?}", RecoveryKey(Zeroizing::new([0xab; 32]))),
        format!("{:?}", keys_with(AesKeyLen::Aes256, 0xab)),
    ];
    for text in secrets {
        assert!(text.contains("[redacted]"), "{text}");
        assert!(!text.contains("171") && !text.contains("abab"), "{text}");
    }
}

#[test]
fn argon2_refuses_what_is_over_the_caps_without_spending_it() {
    let caps = Argon2Params::CAPS;
    let over = [
        Argon2Params {
            memory_kib: caps.memory_kib + 1,
            ..Argon2Params::FOR_TESTS
        },
        Argon2Params {
            passes: caps.passes + 1,
            ..Argon2Params::FOR_TESTS
        },
        Argon2Params {
            lanes: caps.lanes + 1,
            ..Argon2Params::FOR_TESTS
        },
        Argon2Params {
            memory_kib: u32::MAX,
            passes: u32::MAX,
            lanes: u32::MAX,
        },
    ];
    for cost in over {
        let refused = SlotSecret::from_password("p", [0; 16], cost);
        assert!(matches!(refused, Err(DerivationError::TooCostly(_))));
    }
    let nonsense = Argon2Params {
        memory_kib: 0,
        passes: 0,
        lanes: 0,
    };
    let refused = SlotSecret::from_password("p", [0; 16], nonsense);
    assert!(matches!(refused, Err(DerivationError::Argon2(..))));
}

/// The `argon2` crate carries RFC 9106's vectors; here only that nothing is lost on the way to it.
#[test]
fn every_input_of_the_slot_secret_counts() {
    let derive = |password: &str, salt, passes| {
        let cost = Argon2Params {
            passes,
            ..Argon2Params::FOR_TESTS
        };
        *kdf::from_password(password, &[salt; 16], cost).unwrap()
    };
    let one = derive("password", 1, 1);
    assert_eq!(one, derive("password", 1, 1));
    assert_ne!(one, derive("Password", 1, 1));
    assert_ne!(one, derive("password", 2, 1));
    assert_ne!(one, derive("password", 1, 2));
}
