//! What a process's requests cost, at list prices: an estimate for people, who decide by it how often to seal. Pure arithmetic on the
//! counts of [`super::metered`]; `status` shows it.

use std::time::Duration;

use crate::store::metered::{Meter, Operation};
use crate::store::url::{Location, S3Place};

/// Dollars for 1,000 PUT, COPY, POST or LIST requests: the list price of S3 Standard in US East (N. Virginia), like the two below, which has
/// stood for years (<https://aws.amazon.com/s3/pricing/> has today's). A DELETE costs nothing, nor does traffic to S3.
const USD_PER_1000_PUT_OR_LIST: f64 = 0.005;
/// Dollars for 1,000 GET, HEAD and all other requests.
const USD_PER_1000_GET: f64 = 0.0004;
/// Dollars to keep a gigabyte (2³⁰ bytes, as S3 counts) for a month; the first 50 TB.
const USD_PER_GB_MONTH: f64 = 0.023;

/// A twelfth of a year of 365 days.
const MONTH: Duration = Duration::from_secs(365 * 24 * 3600 / 12);
/// A shorter time says nothing about a month: mounting alone asks for things that are not asked for again.
const WATCHED_MIN: Duration = Duration::from_secs(600);

/// Requests by what S3 charges for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Objects put, conditional or not.
    pub put: u64,
    /// Pages of names listed.
    pub list: u64,
    /// Objects read, whole or in part.
    pub get: u64,
    /// Objects asked for without their bytes.
    pub head: u64,
    /// Requests to remove objects, however many at once.
    pub delete: u64,
    /// How many of them failed, as far as their senders know; objects that were not there included.
    pub failed: u64,
}

impl Requests {
    /// What `meter` has counted.
    pub fn of(meter: &Meter) -> Self {
        let count = |operations: &[Operation]| {
            let usages = operations.iter().map(|&operation| meter.usage(operation));
            usages.map(|usage| usage.requests).sum()
        };
        let failures = Operation::ALL.map(|operation| meter.usage(operation).failures);
        Self {
            put: count(&[Operation::Put, Operation::PutIf]),
            list: count(&[Operation::List]),
            get: count(&[Operation::Get, Operation::GetRange]),
            head: count(&[Operation::Head]),
            delete: count(&[Operation::Delete]),
            failed: failures.iter().sum(),
        }
    }

    /// Dollars for them.
    fn usd(&self) -> f64 {
        let (dear, cheap) = (self.put + self.list, self.get + self.head);
        dear as f64 / 1000.0 * USD_PER_1000_PUT_OR_LIST + cheap as f64 / 1000.0 * USD_PER_1000_GET
    }
}

/// What a month costs if it goes on like this, in dollars.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Monthly {
    /// A month's requests.
    pub requests: f64,
    /// Keeping, for a month, what a month's uploads add. What is in the repository already is not known here.
    pub storage_added: f64,
}

/// The estimate after `watched`; `None` where that is too short to say.
pub fn monthly(requests: &Requests, bytes_put: u64, watched: Duration) -> Option<Monthly> {
    if watched < WATCHED_MIN {
        return None;
    }
    let months = watched.as_secs_f64() / MONTH.as_secs_f64();
    let gigabytes = bytes_put as f64 / (1_u64 << 30) as f64;
    Some(Monthly {
        requests: requests.usd() / months,
        storage_added: gigabytes * USD_PER_GB_MONTH / months,
    })
}

/// Whether `location` is with AWS, whose prices these are.
pub fn applies_to(location: &Location) -> bool {
    match location {
        Location::Folder(_) => false,
        Location::S3(S3Place { endpoint, .. }) => endpoint
            .as_deref()
            .is_none_or(|endpoint| endpoint.contains(".amazonaws.com")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(found: f64, expected: f64) {
        assert!((found - expected).abs() < 0.01, "{found}, not {expected}");
    }

    #[test]
    fn a_month_at_one_seal_in_five_seconds_costs_what_the_list_says() {
        // A day of seals: a PUT and a HEAD each, a LIST with each, and a gigabyte in all.
        let day = Duration::from_secs(24 * 3600);
        let seals = 24 * 3600 / 5;
        let requests = Requests {
            put: seals,
            list: seals,
            head: seals,
            ..Requests::default()
        };
        let month = monthly(&requests, 1 << 30, day).unwrap();
        about(month.requests, 365.0 / 12.0 * (17.28 * 0.0104));
        about(month.storage_added, 365.0 / 12.0 * 0.023);
    }

    #[test]
    fn nothing_is_said_too_early_and_nothing_costs_nothing() {
        let requests = Requests::default();
        assert_eq!(monthly(&requests, 0, Duration::from_secs(599)), None);
        let month = monthly(&requests, 0, WATCHED_MIN).unwrap();
        about(month.requests + month.storage_added, 0.0);
    }

    #[test]
    fn prices_are_those_of_one_seller() {
        for (location, applies) in [
            ("/mnt/usb", false),
            ("s3://bucket/x", true),
            (
                "s3://bucket/x?endpoint=https://s3.eu-west-1.amazonaws.com",
                true,
            ),
            ("s3://bucket/x?endpoint=http://nas.local:9000", false),
        ] {
            assert_eq!(
                applies_to(&location.parse().unwrap()),
                applies,
                "{location}"
            );
        }
    }
}
