//! The stores' contract against a server that runs already: `cargo run --example store-contract LOCATION [kept|absence|ignored]`.
//!
//! The last word says what the server makes of conditional writes: keeps to all, to If-None-Match alone, or to none. Credentials
//! come from the environment. Panics where a promise is broken; `scripts/s3-servers` runs it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops best where it stands"
)]

use rewindfs::store::{self, Traffic};

#[path = "../it/store_contract.rs"]
mod store_contract;

use store_contract::Conditions;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let location = args.next().ok_or("which location?")?.parse()?;
    let conditions = match args.next().as_deref() {
        None | Some("kept") => Conditions::Kept,
        Some("absence") => Conditions::OfAbsence,
        Some("ignored") => Conditions::Ignored,
        Some(other) => return Err(format!("{other}? There are kept, absence and ignored").into()),
    };
    let store = store::open(&location, &Traffic::default()).await?;
    store_contract::check_with(store, conditions).await;
    Ok(())
}
