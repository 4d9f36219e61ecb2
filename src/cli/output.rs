//! All printing. Results go to standard output; progress, warnings and errors go to standard error, so that a pipe gets
//! results alone. With `--json`, standard output holds JSON and nothing else.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use humansize::{BINARY, format_size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// A progress bar on a terminal; shows nothing elsewhere.
pub(crate) type Bar = ProgressBar;

/// Nobody reads standard output any more (`rewindfs snapshots | head`): a quiet end, not a failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct Closed;

/// Writes bytes to standard output.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => anyhow::Error::new(Closed),
            _ => anyhow::Error::new(error).context("write to standard output"),
        })
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a value as JSON to standard output, on lines that people can read.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes rows under a head, in columns; `right` names the columns that hold numbers.
pub(crate) fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> anyhow::Result<()> {
    line(format_table(head, right, rows).trim_end_matches('\n'))
}

/// Tells a person something on standard error. Best effort: where nobody listens, nothing is lost that a result needs.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Tells of something that a person should know but that stops nothing.
pub(crate) fn warning(text: &str) {
    note(&format!("rewindfs: warning: {text}"));
}

/// Tells why the run failed.
pub(crate) fn error(sentence: &str) {
    note(&format!("rewindfs: {sentence}"));
}

/// A size in bytes for people: `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

/// A ratio for people: `0.43`, or `-` where there is nothing to compare.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

/// A number of seconds for people: `4 s`, `3 min 20 s`, `2 h 5 min`.
pub(crate) fn seconds(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A bar on standard error that counts bytes; invisible where standard error is no terminal.
pub(crate) fn bytes_bar(what: &str, expected: u64) -> ProgressBar {
    let bar = bar(
        what,
        "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
    );
    bar.set_length(expected);
    bar
}

/// A line on standard error that turns while something goes on; invisible where standard error is no terminal.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let spinner = bar(what, "{spinner} {msg}");
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn bar(what: &str, template: &str) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template(template)
        .expect("the two templates above are valid, as a test shows");
    ProgressBar::with_draw_target(Some(0), target)
        .with_style(style)
        .with_message(what.to_owned())
}

fn format_table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let cell = |row: &[String], column: usize| row.get(column).map_or(0, |c| c.chars().count());
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let longest = rows.iter().map(|row| cell(row, column)).max();
            title.chars().count().max(longest.unwrap_or(0))
        })
        .collect();
    let mut text = String::new();
    let mut put = |row: &[&str]| {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match right.contains(&column) {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    put(head);
    for row in rows {
        put(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

/// Text that came from elsewhere (names of files, labels) made safe for a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        match c.is_control() {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![
            vec!["a".to_owned(), "1".to_owned(), "x".to_owned()],
            vec!["größe".to_owned(), "1000".to_owned(), String::new()],
        ];
        let text = format_table(&["NAME", "COUNT", "END"], &[1], &rows);
        assert_eq!(text, "NAME   COUNT  END\na          1  x\ngröße   1000\n");
    }

    #[test]
    fn bars_can_be_made() {
        bytes_bar("upload", 7).finish();
        spinner("wait").finish();
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(size(1536), "1.50 KiB");
        assert_eq!(ratio(Some(0.432)), "0.43");
        assert_eq!(ratio(None), "-");
        assert_eq!(seconds(4), "4 s");
        assert_eq!(seconds(200), "3 min 20 s");
        assert_eq!(seconds(7500), "2 h 5 min");
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("größe".as_bytes()), "größe");
    }
}
