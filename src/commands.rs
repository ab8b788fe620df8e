//! What the command line does: the whole program in one match, for the binary and for whoever starts it otherwise.

use crate::api::crd;
use crate::settings::{Arguments, Command};
use crate::{operator, telemetry};

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Crd => {
            let definitions = crd::definitions().into_iter().map(|(_, definition)| crd::yaml(&definition));
            let documents = definitions.collect::<anyhow::Result<Vec<String>>>()?;
            print!("{}", documents.join("---\n"));
            Ok(())
        }
        Command::Run(arguments) => {
            let settings = arguments.check()?;
            telemetry::start(arguments.log_format, &arguments.log)?;
            // kube and the AWS SDKs share one TLS implementation; without this line rustls does not know which.
            rustls::crypto::aws_lc_rs::default_provider()
                .install_default()
                .map_err(|_| anyhow::anyhow!("another TLS implementation is installed already"))?;
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(operator::run(settings))
        }
    }
}
