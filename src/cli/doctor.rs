//! `rewindfs doctor`: whether a store can hold a repository, and what follows from how it answers.

use super::context::{Context, block_on};
use super::exit::Exit;
use super::output;
use crate::config;
use crate::store::trial::{self, Finding, Verdict};
use crate::store::url::Location;

/// Try a store for all that a repository relies on
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Works before there is a repository and beside one, needs no password, and tries with a few small objects of its own under doctor/, \
which it removes again where the credentials allow that. Each answer is good, worth knowing (`advice`: a repository can be kept \
there), or bad. Exit code 0 means that nothing is bad, 1 that something is.

Examples:
  rewindfs doctor s3://my-bucket/docs
  rewindfs doctor 's3://my-bucket/docs?endpoint=http://nas.local:9000'
  rewindfs doctor /mnt/usb --json")]
pub(crate) struct Args {
    /// Where: s3://bucket/prefix or a folder; otherwise as --repo says
    #[arg(value_name = "REPO")]
    place: Option<Location>,
    /// Print JSON: [{what, verdict, found, follows}]
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Tries; prints what was found.
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let configured = context.configured_location()?;
        let location = self.place.or_else(|| context.repo.clone()).or(configured);
        let location = location.ok_or_else(|| {
            config::Error::Usage(
                "which? Name a folder or s3://bucket/prefix: `rewindfs doctor REPO`".into(),
            )
        })?;
        let traffic = context.traffic();
        let findings = block_on(async { Ok(trial::examine(&location, &traffic).await) })?;
        match self.json {
            true => output::json(&findings)?,
            false => print(&findings)?,
        }
        Ok(exit(&findings))
    }
}

fn exit(findings: &[Finding]) -> Exit {
    match findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Bad)
    {
        true => Exit::Failed,
        false => Exit::Done,
    }
}

fn print(findings: &[Finding]) -> anyhow::Result<()> {
    for finding in findings {
        let text = |text: &str| output::printable(text.as_bytes());
        let verdict = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Advice => "advice",
            Verdict::Bad => "BAD",
        };
        output::line(&format!(
            "{verdict:<8}{:<12}{}",
            finding.what,
            text(&finding.found)
        ))?;
        if !finding.follows.is_empty() {
            output::line(&format!("{:20}{}", "", text(&finding.follows)))?;
        }
    }
    output::line(match exit(findings) {
        Exit::Done => "a repository can be kept there",
        _ => "no repository can be kept there like this",
    })
}
