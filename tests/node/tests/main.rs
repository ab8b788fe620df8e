//! On a real node: `bash tests/node/run`. One test at a time, each from a bare node.

mod gitops;
mod installed;
mod replicas;
mod shown;
mod waited_for;
