//! The fault matrix: what goes wrong around the operator, row by row, on a real API server. `docs/reliability.md` has the
//! table that says which test stands for which row.

mod answers;
mod aws;
mod crashes;
mod fuse;
mod herd;
mod kills;
mod ledgers;
mod outages;
mod owners;
mod proxy;
mod rig;
mod signals;
mod site;
mod time;
mod watches;
