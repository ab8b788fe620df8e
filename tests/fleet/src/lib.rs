//! Large fleets in virtual time: the operator's own reconcile, dispatcher, work queue and rate limiter, with streams and
//! an API server that exist only in memory.
//!
//! It measures how well AWS's limits of requests are used, and what a resource costs; the promises about single streams
//! are proven elsewhere, with faults. Nothing here decides: replacing a part by one that does would measure that part.
//!
//! | module | content |
//! |---|---|
//! | [`aws`] | the streams, and AWS's limits of requests |
//! | [`kubernetes`] | the resources with their statuses, and the ledgers |
//! | [`run`] | one operator with its fleet, from the start until all resources are Ready, or beyond |

pub mod aws;
pub mod kubernetes;
pub mod run;
