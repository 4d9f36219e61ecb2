//! Objects, tried: written, read back whole and in parts, written over, asked for where there are none.

use bytes::Bytes;

use super::{Stop, Trial, key};
use crate::store::{Body, Kind};

/// More than fits into one packet and one step, and not a multiple of any.
const LEN: usize = 300_007;
/// Ranges that readers ask for, and what must come: inside, to the end, over the end, behind it.
const RANGES: [(u64, u64); 5] = [
    (0, 1),
    (4096, 8192),
    (LEN as u64 - 5, LEN as u64),
    (LEN as u64 - 5, LEN as u64 + 100),
    (LEN as u64 + 1, LEN as u64 + 9),
];

const NEEDED: &str = "without this no repository can be kept there";

impl Trial {
    pub(super) async fn objects(&mut self) -> Result<(), Stop> {
        self.write_and_read().await?;
        self.ranges().await?;
        self.absent().await?;
        self.checksums().await;
        Ok(())
    }

    async fn write_and_read(&mut self) -> Result<(), Stop> {
        let name = key("object");
        for (what, number) in [("write", 1), ("overwrite", 2)] {
            let bytes = noise(number);
            let put = self.store.put(&name, Body::Bytes(bytes.clone())).await;
            self.unless(what, put, NEEDED)?;
            let got = self.store.get(&name, LEN as u64).await;
            let (found, _) = self.unless("read", got, NEEDED)?;
            let len = self.store.head(&name).await;
            let len = self.unless("read", len, NEEDED)?;
            if found != bytes || len != Some(LEN as u64) {
                let follows = "what has been stored must be seen at once by everybody, or snapshots would look damaged; \
                               is there a cache between here and the store?";
                self.bad(what, "other bytes came back than were just stored", follows);
                return Err(Stop);
            }
        }
        self.good(
            "write",
            "an object is stored, and replaced by another of its name",
        );
        self.good("read", "what was stored comes back at once, byte for byte");
        Ok(())
    }

    async fn ranges(&mut self) -> Result<(), Stop> {
        let (name, whole) = (key("object"), noise(2));
        for (start, end) in RANGES {
            let got = self.store.get_range(&name, start..end).await;
            let got = self.unless("ranges", got, NEEDED)?;
            let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(LEN);
            if got != whole.slice(cut(start)..cut(end)) {
                let found = format!("bytes {start} to {end} were asked for, and others came");
                let follows = "files are read by ranges: every read from there would be an error; keep the repository elsewhere";
                self.bad("ranges", found, follows);
                return Err(Stop);
            }
        }
        self.good("ranges", "parts of objects are what was asked for");
        Ok(())
    }

    async fn absent(&mut self) -> Result<(), Stop> {
        match self.store.get(&key("absent"), 1).await {
            Err(error) if error.kind == Kind::Missing => {
                self.good("absence", "what is not there is said to be missing");
                Ok(())
            }
            Err(error) => {
                let follows = "a missing object must be told from one that is kept from us: S3 says so only to who has the \
                               right s3:ListBucket on the bucket";
                self.bad("absence", error, follows);
                Err(Stop)
            }
            Ok(_) => {
                self.bad(
                    "absence",
                    "an object that was never stored came back",
                    NEEDED,
                );
                Err(Stop)
            }
        }
    }

    /// Whether the server proves the checksum that goes with each object.
    async fn checksums(&mut self) {
        let Some(s3) = self.s3.clone() else {
            return;
        };
        match s3.refuses_wrong_checksum(&key("checksum")).await {
            Ok(Some(true)) => self.good("checksums", "an object whose checksum is wrong is refused"),
            Ok(Some(false)) => self.advise(
                "checksums",
                "an object whose checksum is wrong is stored all the same",
                "the server does not prove what arrives; damage on the way there is found by `rewindfs check --read-data`, not at \
                 once (with TLS the way is proven)",
            ),
            Ok(None) => self.advise(
                "checksums",
                "none are sent, as checksum=false says",
                "damage on the way is found by `rewindfs check --read-data`, not at once (with TLS the way is proven)",
            ),
            Err(error) => self.advise("checksums", error, "it could not be tried"),
        }
    }
}

/// Bytes without a pattern that a wrong offset could hide in; others for each `number`.
fn noise(number: u32) -> Bytes {
    let mut state = 0x9e37_79b9_u32 ^ number;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..LEN).map(|_| next()).collect()
}
