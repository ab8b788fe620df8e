//! The operator's binary: arguments in, exit code out.

use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;

fn main() -> anyhow::Result<()> {
    stream_encryption_operator::commands::run(Arguments::parse())
}
