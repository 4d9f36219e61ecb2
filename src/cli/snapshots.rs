//! `rewindfs snapshots`: every point in time that can be gone back to.

use serde::Serialize;

use super::context::{Context, block_on, id};
use super::exit::Exit;
use super::{output, time};
use crate::config::select::VolumeRef;
use crate::daemon::opening::{Opening, choose};
use crate::daemon::status::ratio;
use crate::format::entry::HistoryEntry;
use crate::repo::{Error, Volume};

/// List every point in time that can be gone back to
#[derive(clap::Args, Debug)]
#[command(after_help = "\
C is compressed / original bytes, E encrypted / compressed bytes, of what each snapshot added.

Examples:
  rewindfs snapshots
  rewindfs snapshots --volume docs --json | jq -r '.[-1].id'")]
pub(crate) struct Args {
    /// Only this volume's; otherwise those of all volumes in the repository
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    /// Print JSON: [{id, seq, time, name, volume, files, bytes, added_bytes, stored_bytes}]
    #[arg(long)]
    json: bool,
}

/// One snapshot. The field names are a contract with scripts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Row {
    id: String,
    seq: u64,
    /// That by which it is found; RFC 3339, UTC.
    time: String,
    name: String,
    volume: String,
    files: u64,
    bytes: u64,
    added_bytes: u64,
    stored_bytes: u64,
}

impl Args {
    /// Prints the list, oldest first.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let selected = context.select(self.volume.as_deref())?;
        let opening = context.opening(&selected.repo)?;
        let (kept, exit) = block_on(kept(&opening, self.volume))?;
        if self.json {
            let rows: Vec<Row> = kept
                .iter()
                .map(|(volume, entry)| row(volume, entry))
                .collect();
            output::json(&rows)?;
            return Ok(exit);
        }
        if kept.is_empty() {
            output::note("no snapshots yet");
            return Ok(exit);
        }
        print(context, &kept)?;
        Ok(exit)
    }
}

/// The kept snapshots of one volume or of all, each with its volume's name; and whether newer ones are damaged or gone, which has been
/// said then.
async fn kept(
    opening: &Opening,
    volume: Option<String>,
) -> anyhow::Result<(Vec<(String, HistoryEntry)>, Exit)> {
    let repository = opening.repository_with_spools().await?;
    let all = repository.volumes().await?;
    let volumes = match volume {
        Some(name) => vec![choose(&all, &VolumeRef::Name(name))?.clone()],
        None => all,
    };
    let (mut kept, mut exit) = (Vec::new(), Exit::Done);
    for info in volumes {
        let volume = repository.volume(info.id).await?;
        let (history, damage) = history(&volume).await?;
        if let Some(damage) = damage {
            output::warning(&format!(
                "{}: {damage}; older snapshots that can be read are listed",
                info.name
            ));
            exit = Exit::Damage;
        }
        kept.extend(history.into_iter().map(|entry| (info.name.clone(), entry)));
    }
    Ok((kept, exit))
}

/// The kept snapshots that can be read, and what is wrong with newer ones.
async fn history(volume: &Volume) -> Result<(Vec<HistoryEntry>, Option<Error>), Error> {
    let (head, damage) = match volume.head().await {
        Err(damage) if damage.is_damage() => (volume.newest_readable().await?.0, Some(damage)),
        head => (head?, None),
    };
    let mut history = match head {
        Some(head) => volume.history(&head).await?,
        None => Vec::new(),
    };
    history.retain(|entry| entry.forgotten.is_none());
    Ok((history, damage))
}

fn row(volume: &str, entry: &HistoryEntry) -> Row {
    Row {
        id: id(&entry.tag),
        seq: entry.name.seq.0,
        time: entry.name.stamp.to_rfc3339(),
        name: entry.label.clone(),
        volume: volume.to_owned(),
        files: entry.totals.files,
        bytes: entry.totals.bytes,
        added_bytes: entry.totals.added,
        stored_bytes: entry.totals.stored,
    }
}

fn print(context: &Context, kept: &[(String, HistoryEntry)]) -> anyhow::Result<()> {
    let several = kept.iter().any(|(volume, _)| *volume != kept[0].0);
    let mut head = vec![
        "ID", "SEQ", "TIME", "FILES", "BYTES", "ADDED", "STORED", "C", "E", "NAME",
    ];
    if several {
        head.push("VOLUME");
    }
    let rows: Vec<Vec<String>> = kept
        .iter()
        .map(|(volume, entry)| {
            let totals = &entry.totals;
            let name = match entry.incomplete {
                true => format!("{} (incomplete)", entry.label),
                false => entry.label.clone(),
            };
            let mut cells = vec![
                id(&entry.tag),
                format!("@{}", entry.name.seq),
                time::local(entry.name.stamp, &context.now),
                totals.files.to_string(),
                output::size(totals.bytes),
                output::size(totals.added),
                output::size(totals.stored),
                output::ratio(ratio(totals.compressed, totals.added)),
                output::ratio(ratio(totals.stored, totals.compressed)),
                output::printable(name.trim_start().as_bytes()),
            ];
            if several {
                cells.push(output::printable(volume.as_bytes()));
            }
            cells
        })
        .collect();
    output::table(&head, &[1, 3, 4, 5, 6, 7, 8], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stamp;
    use crate::format::entry::{CommitName, Totals};
    use crate::id::{Era, Seq, SessionId, Tag};

    #[test]
    fn json_has_exactly_the_promised_fields() {
        let entry = HistoryEntry {
            name: CommitName {
                era: Era(0),
                stamp: Stamp(1_795_260_000_123),
                seq: Seq(7),
                session: SessionId([0; 8]),
            },
            tag: Tag([0xab; 32]),
            wall: Stamp(1_795_260_000_122),
            totals: Totals {
                files: 1,
                bytes: 2,
                added: 3,
                compressed: 4,
                stored: 5,
            },
            label: "release-1".into(),
            incomplete: false,
            forgotten: None,
        };
        let json = serde_json::to_value(row("docs", &entry)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "abababababababab",
                "seq": 7,
                "time": "2026-11-21T11:20:00.123Z",
                "name": "release-1",
                "volume": "docs",
                "files": 1,
                "bytes": 2,
                "added_bytes": 3,
                "stored_bytes": 5,
            })
        );
    }
}
