//! The tests' S3 server as a process of its own: `cargo run --example s3-server [ADDRESS [BUCKET]]`.
//!
//! It prints one line that a shell can evaluate (endpoint, bucket, credentials), then serves until it is
//! killed. Each line on its standard input it answers with the number of requests so far, the bytes of objects given out for them, and
//! those taken in; a line with a number makes every request take so many milliseconds longer from then on. Everything is kept in memory
//! and gone afterwards.

mod s3_server;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use s3_server::{ACCESS_KEY, Fault, Rule, S3Server, SECRET_KEY};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address: SocketAddr = args.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let bucket = args.next().unwrap_or_else(|| "rewindfs".to_owned());
    let server = S3Server::start_at(address, &bucket)?;
    let mut stdout = io::stdout();
    writeln!(
        stdout,
        "S3_ENDPOINT={} S3_BUCKET={bucket} AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}",
        server.endpoint(),
    )?;
    stdout.flush()?;
    for line in io::stdin().lock().lines() {
        if let Ok(late) = line?.trim().parse() {
            server.heal();
            server.inject(Rule::always(Fault::Late(Duration::from_millis(late))));
        }
        let (answered, received) = (server.answered(), server.received_bytes());
        writeln!(stdout, "{} {answered} {received}", server.requests())?;
        stdout.flush()?;
    }
    loop {
        // Serving goes on in the background, on threads of its own.
        std::thread::park();
    }
}
