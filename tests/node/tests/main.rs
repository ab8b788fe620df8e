//! Tests on a real node: `bash tests/node/run`. The tests run one at a time, each from an empty node.

mod gitops;
mod installed;
mod replicas;
mod waited_for;
