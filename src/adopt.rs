//! Taking over streams that exist already: which streams there are, and the manifests for those that no
//! `StreamEncryption` manages yet.
//!
//! The steps are separate modules, from AWS to the files:
//!
//! | module | content |
//! |---|---|
//! | [`survey`] | lists and describes the streams of accounts and regions |
//! | [`found`], [`owners`] | one stream as AWS describes it, and the tools that manage it according to its tags |
//! | [`progress_file`] | what a survey has described so far, so that an ended one continues |
//! | [`managed`] | the streams that a `StreamEncryption` of the cluster manages already |
//! | [`keys`], [`plan`] | the key of each stream's manifest, or why a stream is left out |
//! | [`names`], [`manifests`] | the names and the content of the manifests |
//! | [`policies`], [`grants`], [`kustomization`] | the policies, the IAM policies and the kustomization, each extended |
//! | [`folder`], [`aliases`] | what a folder has already, and the keys behind the aliases of its manifests |
//! | [`files`] | the layout of the files, and writing them |
//! | [`atomic_file`] | writing a file as a whole |
//!
//! Nothing here changes a stream, a key or an object of the cluster: the requests to AWS only read, and the results
//! are files that a person reviews.

pub mod aliases;
pub mod atomic_file;
pub mod files;
pub mod folder;
pub mod found;
pub mod grants;
pub mod keys;
pub mod kustomization;
pub mod managed;
pub mod manifests;
pub mod names;
pub mod owners;
pub mod plan;
pub mod policies;
pub mod progress_file;
pub mod survey;
