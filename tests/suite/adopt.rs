//! `adopt` against the simulated AWS: the survey in virtual time with AWS's limits, and the command on a real API server.

mod command;
mod keys;
mod survey;
mod virtual_aws;
