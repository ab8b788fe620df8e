//! The fault matrix: faults around the operator, on a real API server. `docs/reliability.md` says which test covers which
//! fault.

mod api_server_errors;
mod kills;
mod ledgers;
mod outages;
mod process_env;
mod process_signals;
pub(crate) mod proxy;
mod replicas;
pub(crate) mod scenario;
mod startup_load;
mod watches;
