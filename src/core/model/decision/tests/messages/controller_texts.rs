//! The texts of the controller that users see and that no function of the model returns.

/// The text that the controller writes, and the file and the expression that write it.
pub(super) const FROM_CONTROLLER: [(&str, &str, &str); 9] = [
    ("Invalid spec: ERROR.", include_str!("../../../../controller/resolve.rs"), "\"Invalid spec: {words}.\""),
    (
        "Invalid resource: ERROR. The stored resource does not match the schema of this operator version: correct it and apply it again.",
        include_str!("../../../../controller/publish.rs"),
        "\"Invalid resource: {why}. The stored resource does not match the schema of this operator version: correct it and apply it again.\"",
    ),
    (
        "Drift detected. Records are in plaintext. The operator is correcting it.",
        include_str!("../../../../controller/execute.rs"),
        "\"Drift detected. {was} The operator is correcting it.\"",
    ),
    (
        "The retry \"VALUE\" of the annotation streamencryption.dev/retry was handled, and the reason is the same: MESSAGE",
        include_str!("../../../../controller/publish.rs"),
        "\"The retry {retry:?} of the annotation {RETRY_ANNOTATION} was handled, and the reason is the same: {ready}\"",
    ),
    (
        "MESSAGE The resource is deleted, and the encryption of its stream is unchanged.",
        include_str!("../../../../controller/finalize.rs"),
        "\"{why} The resource is deleted, and the encryption of its stream is unchanged.\"",
    ),
    (
        "MESSAGE The API server did not confirm the removal of the finalizer. If it removed the finalizer, the resource is deleted, and the encryption of its stream is unchanged.",
        include_str!("../../../../controller/finalize.rs"),
        "\"{why} The API server did not confirm the removal of the finalizer. If it removed the finalizer, the resource is deleted, and the encryption of its stream is unchanged.\"",
    ),
    (
        "The finalizer cannot be added: ERROR. If the resource is deleted now, the encryption of its stream stays on.",
        include_str!("../../../../controller/finalize.rs"),
        "\"The finalizer cannot be added: {error}. If the resource is deleted now, the encryption of its stream stays on.\"",
    ),
    (
        "The finalizer cannot be removed: ERROR. Until it is removed, a deletion of the resource does not complete.",
        include_str!("../../../../controller/finalize.rs"),
        "\"The finalizer cannot be removed: {error}. Until it is removed, a deletion of the resource does not complete.\"",
    ),
    (
        "Invalid resource: ERROR. The resource is deleted, and the encryption of its stream is unchanged.",
        include_str!("../../../../controller/publish.rs"),
        "\"Invalid resource: {why}.\"",
    ),
];
