//! Sizes in bytes and durations as people write them: `64MiB`, `1.5 GB`, `4096`; `5s`, `2m30s`.

use std::time::Duration;

use jiff::SignedDuration;

use crate::store::pace::RATE_MIN;

/// Units that a size may carry; the first that fits the end of the text, so longer ones come first.
const UNITS: [(&str, f64); 16] = [
    ("kib", 1024.0),
    ("mib", 1048576.0),
    ("gib", 1073741824.0),
    ("tib", 1099511627776.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("k", 1024.0),
    ("m", 1048576.0),
    ("g", 1073741824.0),
    ("t", 1099511627776.0),
    ("bytes", 1.0),
    ("byte", 1.0),
    ("b", 1.0),
    ("", 1.0),
];

/// Reads a size in bytes. Letters may be small or capital; `K`, `M`, `G`, `T` alone are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let refused = || format!("`{text}` is not a size; write 4096, 64MiB or 1.5GB");
    let (number, unit) = UNITS
        .iter()
        .find_map(|(unit, factor)| lower.strip_suffix(unit).map(|rest| (rest.trim(), *factor)))
        .ok_or_else(refused)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refused());
    }
    if unit == 1.0 && !number.contains('.') {
        return number.parse().map_err(|_| refused());
    }
    let value = number.parse::<f64>().map_err(|_| refused())? * unit;
    // Beyond 2^53 the product is no longer exact, and no size that a person sets comes near it.
    if value > 9e15 {
        return Err(refused());
    }
    Ok(value as u64)
}

/// Reads a rate in bytes a second: a size, with `/s` behind it or not. At least [`RATE_MIN`].
pub fn rate(text: &str) -> Result<u64, String> {
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    match bytes(size) {
        Ok(rate) if rate >= RATE_MIN => Ok(rate),
        Ok(_) => Err(format!(
            "`{text}` is too slow: servers take the line for dead below {} KiB/s",
            RATE_MIN >> 10
        )),
        Err(_) => Err(format!(
            "`{text}` is not a rate; write 2MiB/s or 500KB/s (bytes, not bits)"
        )),
    }
}

/// Reads a length of time: `5s`, `2m30s`, `1 hour`, or a bare number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is not a length of time; write 5s, 2m30s or 1h");
    let trimmed = text.trim();
    if !trimmed.is_empty() && trimmed.bytes().all(|b| b.is_ascii_digit()) {
        return trimmed
            .parse()
            .map(Duration::from_secs)
            .map_err(|_| refused());
    }
    let signed: SignedDuration = trimmed.parse().map_err(|_| refused())?;
    Duration::try_from(signed).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_people_write_are_read() {
        for (text, want) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64M", 64 << 20),
            ("1.5GB", 1_500_000_000),
            ("2TiB", 2 << 40),
            ("7 bytes", 7),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        for text in [
            "",
            "MiB",
            "-1",
            "1e3",
            "12 parsecs",
            "1..2M",
            "99999999999999999999",
            "99999TiB",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_people_write_are_read() {
        for (text, want) in [
            ("2MiB/s", 2 << 20),
            ("500 KB/s", 500_000),
            ("1M", 1 << 20),
            ("16KiB/s", RATE_MIN),
        ] {
            assert_eq!(rate(text), Ok(want), "{text}");
        }
        for text in ["", "/s", "0", "16383", "10Mbit/s", "2MiB/min", "fast"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_people_write_are_read() {
        for (text, want) in [
            ("5s", 5_000),
            ("500ms", 500),
            ("2m30s", 150_000),
            ("1 hour", 3_600_000),
            ("90", 90_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for text in ["", "soon", "-5s", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
