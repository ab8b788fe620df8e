//! The operator's binary, which is also the kubectl plugin: arguments in, exit code out.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use stream_encryption_operator::settings::Arguments;
use stream_encryption_operator::{commands, plugin};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    // kubectl finds a plugin, and its completion, by the names of files.
    let ended = match Path::new(&program).file_stem().and_then(|name| name.to_str()) {
        Some(plugin::FILE_NAME) => return commands::plugin_main(),
        Some(plugin::completion::FILE_NAME) => {
            let words: Vec<String> = std::env::args().skip(1).collect();
            commands::complete_plugin(&words).map(|()| ExitCode::SUCCESS)
        }
        _ => match Arguments::try_parse() {
            Ok(arguments) => commands::run(arguments),
            Err(error) => return commands::refuse(&error),
        },
    };
    ended.unwrap_or_else(|error| {
        commands::print_error(&error);
        ExitCode::FAILURE
    })
}
