//! How far this machine's clock is from the server's, as the dates of its answers say. `line.rs` notes them; error messages and the
//! trial of a store tell.

use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};

/// What the last answer said.
#[derive(Debug, Default)]
pub(super) struct Skew {
    offset_ms: Mutex<Option<i64>>,
}

impl Skew {
    /// Notes an answer's date (RFC 9110, 5.6.7), which is exact to a second. What is no date says nothing.
    pub(super) fn note(&self, date: &str) {
        let told = DateTime::from_str(date, Format::HttpDate).ok();
        // The middle of the second that is meant.
        let told = told.map(|told| told.secs().saturating_mul(1000).saturating_add(500));
        let ours = i64::try_from(SystemClock.now().0).ok();
        if let (Some(told), Some(ours)) = (told, ours) {
            *self.offset_ms.lock() = Some(ours.saturating_sub(told));
        }
    }

    /// How many milliseconds this machine's clock is ahead of the server's, or behind if negative; exact to about a second. `None`
    /// before the first answer that says.
    pub(super) fn offset_ms(&self) -> Option<i64> {
        *self.offset_ms.lock()
    }

    /// The same in words; empty where it is not known or small enough to come from the date's seconds and the way here.
    pub(super) fn words(&self) -> String {
        let Some(offset) = self.offset_ms().filter(|offset| offset.abs() >= 2_000) else {
            return String::new();
        };
        let off = Duration::from_millis(offset.unsigned_abs()).as_secs();
        let far = match (off / 86_400, off / 3600, off / 60) {
            (days @ 2.., ..) => format!("{days} days"),
            (_, hours @ 2.., _) => format!("{hours} hours"),
            (_, _, minutes @ 2..) => format!("{minutes} minutes"),
            _ => format!("{off} seconds"),
        };
        match offset > 0 {
            true => format!("{far} ahead of the server's"),
            false => format!("{far} behind the server's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_tells_how_far_off_the_clock_is() {
        let skew = Skew::default();
        assert_eq!((skew.offset_ms(), skew.words()), (None, String::new()));
        skew.note("yesterday");
        assert_eq!(skew.offset_ms(), None);
        skew.note("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(skew.words().ends_with("days ahead of the server's"));
        *skew.offset_ms.lock() = Some(-3_600_000);
        assert_eq!(skew.words(), "60 minutes behind the server's");
        *skew.offset_ms.lock() = Some(700);
        assert_eq!(skew.words(), "");
    }
}
