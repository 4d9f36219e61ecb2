//! Conditional writes, tried: whether what is there is kept when it should be, and how many of several writers at once win.

use bytes::Bytes;
use futures::future;

use super::{Stop, Trial, is_denied, key};
use crate::crypto;
use crate::store::{Body, Condition, PutOutcome, Version};

/// Writers that race for a name.
const WRITERS: u8 = 8;

const UNGUARDED: &str = "a repository can be kept there: claims of their own names tell writers apart. But should two machines mount a \
                         volume live at one moment, one of them stops only at its first snapshot; mount it on one machine at a time";

impl Trial {
    pub(super) async fn conditions(&mut self) -> Result<(), Stop> {
        let name = key("object");
        let over = self.store.put_if(&name, body(1), Condition::Absent).await;
        let over = self.unless("conditions", over, "a lease must be written")?;
        let got = self.store.get(&name, u64::MAX >> 1).await;
        let (_, version) = self.unless("conditions", got, "a lease must be read")?;
        let wrong = Condition::Is(Version("\"00000000000000000000000000000000\"".into()));
        let wrong = self.store.put_if(&name, body(2), wrong).await;
        let wrong = self.unless("conditions", wrong, "a lease must be written")?;
        let right = match wrong {
            PutOutcome::Done => PutOutcome::Done,
            PutOutcome::Refused => {
                let right = self
                    .store
                    .put_if(&name, body(3), Condition::Is(version))
                    .await;
                self.unless("conditions", right, "a lease must be written")?
            }
        };
        match (over, wrong, right) {
            (PutOutcome::Refused, PutOutcome::Refused, PutOutcome::Done) => {
                self.good("conditions", "If-None-Match and If-Match are kept to");
            }
            (PutOutcome::Refused, ..) => self.advise(
                "conditions",
                "If-None-Match is kept to, If-Match is not",
                "a lease that two machines renew at one moment may be written by both; claims tell them apart at the next snapshot",
            ),
            (PutOutcome::Done, ..) => {
                self.advise("conditions", "the conditions of writes are ignored", UNGUARDED);
                return Ok(());
            }
        }
        self.race().await
    }

    /// Several writers at once create the same object. Needs a new name, and so the right to remove it again.
    async fn race(&mut self) -> Result<(), Stop> {
        let name = key(&format!(
            "race-{:016x}",
            u64::from_le_bytes(crypto::random())
        ));
        if is_denied(&self.store.delete(&name).await) {
            return Ok(());
        }
        let writers =
            (0..WRITERS).map(|writer| self.store.put_if(&name, body(writer), Condition::Absent));
        let ended = future::join_all(writers).await;
        let won = ended
            .iter()
            .filter(|ended| matches!(ended, Ok(PutOutcome::Done)))
            .count();
        let removed = self.store.delete(&name).await;
        self.unless("race", removed, "it could be removed a moment ago")?;
        match won {
            1 => self.good(
                "race",
                format!("of {WRITERS} writers of one name, one wins"),
            ),
            won => self.advise(
                "race",
                format!("of {WRITERS} writers of one name, {won} are told that they have won"),
                UNGUARDED,
            ),
        }
        Ok(())
    }
}

fn body(number: u8) -> Body {
    Body::Bytes(Bytes::from(vec![number; 16]))
}
