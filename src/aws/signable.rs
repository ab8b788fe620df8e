//! Check that credentials can sign a request at all: the SDK's signer panics if they cannot.
//!
//! The access key id and the session token are sent in headers; a secret with a control character is never
//! the one that AWS has. The message names the field and the kind of character, never the value.

use aws_credential_types::Credentials;

/// Returns a message about why the credentials cannot sign a request; `None` if they can.
pub(super) fn unsignable(credentials: &Credentials) -> Option<String> {
    let invalid_in_header = |c: char| !c.is_ascii_graphic();
    let access_key_id = credentials.access_key_id();
    let token = credentials.session_token().unwrap_or_default();
    let bad = [
        ("access key id", access_key_id.chars().find(|c| invalid_in_header(*c))),
        ("session token", token.chars().find(|c| invalid_in_header(*c))),
        ("secret access key", credentials.secret_access_key().chars().find(|c| c.is_control())),
    ];
    let (field, character) = bad.into_iter().find_map(|(field, bad)| Some((field, bad?)))?;
    let kind = match character {
        '\n' | '\r' => "a line break",
        c if c.is_control() => "a control character",
        c if c.is_whitespace() => "a space",
        _ => "a character that is not ASCII",
    };
    Some(format!(
        "the {field} contains {kind}: remove it from the Secret, file or variable that provides the {field}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(id: &str, secret: &str, token: Option<&str>) -> Option<String> {
        unsignable(&Credentials::new(id, secret, token.map(str::to_owned), None, "test"))
    }

    #[test]
    fn aws_credentials_are_signable() {
        assert_eq!(
            problem("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfi=", Some("IQoJb3Jp//+=")),
            None
        );
        assert_eq!(problem("test", "a secret of an emulator", None), None);
    }

    #[test]
    fn unsignable_field_is_named_without_its_value() {
        for (id, secret, token, words) in [
            ("AKIA7\n", "s", None, "the access key id contains a line break"),
            ("AKIA7\r", "s", None, "the access key id contains a line break"),
            ("AKIA7\0", "s", None, "the access key id contains a control character"),
            ("AKIA 7", "s", None, "the access key id contains a space"),
            ("AKIÄ7", "s", None, "the access key id contains a character that is not ASCII"),
            ("AKIA7", "topsecret\n", None, "the secret access key contains a line break"),
            ("ASIA7", "s", Some("topsecret\n"), "the session token contains a line break"),
        ] {
            let problem = problem(id, secret, token).unwrap();
            assert!(problem.starts_with(words), "{problem}");
            assert!(!problem.contains("KIA") && !problem.contains("topsecret"), "{problem}");
        }
    }
}
