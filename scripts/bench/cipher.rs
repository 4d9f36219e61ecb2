//! What does it gain to encrypt eight frames side by side, and how fast is the whole encryption stage on one core?
//!
//! `cargo bench --bench cipher`. Medians of several runs; the ratio is taken within each run, since other work on the
//! machine slows both sides alike. Goals: lanes at least 4 times the serial `cbc` crate, lanes with MAC at least 1.2 GB/s.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark's result is what it prints"
)]

use std::hint::black_box;
use std::time::Instant;

use aes::Aes256;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use rewindfs::compress::Compression;
use rewindfs::crypto::cipher::Cbc;
use rewindfs::crypto::{AesKeyLen, EncryptionKey, VolumeKey, VolumeKeys, random};
use rewindfs::format::frame::{Envelope, FrameKind};
use rewindfs::id::{BlockClass, BlockId, FrameNo, RepositoryId, SessionId, VolumeId};

const RUNS: usize = 15;
/// A block's worth of plaintext in each measurement.
const BYTES: usize = 64 << 20;

fn main() {
    for frame_len in [64 << 10, 256 << 10, (1 << 20) - 64] {
        measure(frame_len);
    }
}

/// GB/s of one run of each path.
#[derive(Default)]
struct Figures {
    serial: Vec<f64>,
    lanes: Vec<f64>,
    ratio: Vec<f64>,
    with_mac: Vec<f64>,
    decrypt: Vec<f64>,
}

fn measure(frame_len: usize) {
    let mut figures = Figures::default();
    for _ in 0..RUNS {
        let (serial, lanes) = (serial(frame_len), lanes(frame_len));
        let (with_mac, decrypt) = with_mac(frame_len);
        figures.serial.push(serial);
        figures.lanes.push(lanes);
        figures.ratio.push(lanes / serial);
        figures.with_mac.push(with_mac);
        figures.decrypt.push(decrypt);
    }
    println!(
        "AES-256-CBC, frames of {} KiB, GB/s on one core",
        frame_len.div_ceil(1024)
    );
    println!(
        "  cbc crate, one frame after another  {:6.2}",
        median(figures.serial)
    );
    println!(
        "  eight frames side by side           {:6.2}",
        median(figures.lanes)
    );
    println!(
        "  ratio of these                      {:6.2}",
        median(figures.ratio)
    );
    println!(
        "  side by side, with HMAC-SHA-256     {:6.2}",
        median(figures.with_mac)
    );
    println!(
        "  verify and decrypt                  {:6.2}",
        median(figures.decrypt)
    );
}

fn serial(frame_len: usize) -> f64 {
    let (key, iv) = (random::<32>(), random::<16>());
    let mut frames = vec![vec![7; frame_len + 16]; BYTES / frame_len];
    per_second(|| {
        for frame in &mut frames {
            let cipher = cbc::Encryptor::<Aes256>::new(&key.into(), &iv.into());
            let encrypted = cipher.encrypt_padded::<Pkcs7>(frame, frame_len);
            black_box(encrypted.expect("there is room for the padding"));
        }
    })
}

fn lanes(frame_len: usize) -> f64 {
    let cbc = Cbc::new(AesKeyLen::Aes256, &EncryptionKey::random());
    let mut frames = vec![vec![7; frame_len + 32]; BYTES / frame_len];
    per_second(|| {
        let mut lanes: Vec<&mut [u8]> = frames.iter_mut().map(Vec::as_mut_slice).collect();
        cbc.encrypt(black_box(&mut lanes));
    })
}

/// Encryption as the flusher does it, and back again.
fn with_mac(frame_len: usize) -> (f64, f64) {
    let keys = VolumeKeys::new(
        RepositoryId::random(),
        VolumeId::random(),
        AesKeyLen::Aes256,
        [(0, VolumeKey::random())],
    );
    let cipher = keys.expect("there is one key").block(BlockId {
        key_epoch: 0,
        class: BlockClass::Data,
        session: SessionId::random(),
        number: 0,
    });
    let plain = vec![7; frame_len];
    let pack = |_| Envelope::pack(&plain, Compression::Off);
    let envelopes: Vec<_> = (0..BYTES / frame_len).map(pack).collect();
    let mut frames = Vec::new();
    let encrypt = per_second(|| {
        frames = cipher.encrypt(FrameNo(0), FrameKind::Data, None, envelopes);
    });
    let decrypt = per_second(|| {
        for (number, frame) in (0..).zip(&frames) {
            let plain = cipher.decrypt(FrameNo(number), FrameKind::Data, None, frame.bytes());
            black_box(plain.expect("it was encrypted just now"));
        }
    });
    (encrypt, decrypt)
}

fn per_second(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    BYTES as f64 / begin.elapsed().as_secs_f64() / 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
