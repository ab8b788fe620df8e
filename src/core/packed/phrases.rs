//! Phrases of JSON that are the same in every object of this operator, and their one-byte codes.
//!
//! Field names and usual values are most of the text of a small object. A phrase that no object contains any more does
//! no harm, and a new field needs none. Pure; what [`shorten`] returns is never stored outside the process.

/// The phrases: the code of each is its index. JSON has no control characters, so no other byte of a text is below 32.
/// Each begins with one of the bytes in [`FIRST`]. If one is the beginning of another, the longer one comes first.
const PHRASES: [&str; 32] = [
    // Metadata.
    r#"{"apiVersion":"streamencryption.dev/v1alpha1","kind":"StreamEncryption","metadata":{"creationTimestamp":""#,
    r#"{"apiVersion":"streamencryption.dev/v1alpha1","kind":"StreamLedger","metadata":{"creationTimestamp":""#,
    r#","managedFields":[{"manager":"stream-encryption-operator","subresource":"status","time":""#,
    r#""}],"name":""#,
    r#"","name":""#,
    r#"","namespace":""#,
    r#"","resourceVersion":""#,
    r#"","uid":""#,
    // The spec of a resource.
    r#""},"spec":{"stream":{"arn":"arn:aws:"#,
    r#""},"encryption":"Enabled","mode":"Enforce","deletionPolicy":"Retain","verification":"None"}"#,
    // Its status.
    r#"{"observedGeneration":"#,
    r#","encryptionStatus":"ENABLED","stream":{"arn":"arn:aws:"#,
    r#"","service":"Kinesis","account":""#,
    r#"","service":"Firehose","account":""#,
    r#"","region":""#,
    r#"","state":"ACTIVE"}"#,
    r#","desiredKey":{"type":"#,
    r#","activeKey":{"type":"#,
    r#""AWS_OWNED_CMK"}"#,
    r#""CUSTOMER_MANAGED_CMK","arn":"arn:aws:kms:"#,
    r#","calls":{"used":"#,
    r#","encryptedSinceTime":""#,
    r#","lastDescribeTime":""#,
    // Its conditions.
    r#"{"lastTransitionTime":""#,
    r#"","message":""#,
    r#"","observedGeneration":"#,
    r#","reason":""#,
    r#"","status":"True","type":""#,
    // The spec of a ledger.
    r#""},"spec":{"streamARN":"arn:aws:"#,
    r#"","owner":{"namespace":""#,
    r#","knownEncryption":{"key":{"type":"#,
    r#","satisfied":{"action":"Start","key":{"type":"#,
];

/// The bytes with which a phrase can begin.
const FIRST: [u8; 3] = *b"{\",";

/// The number of bytes that are compared at once before a whole phrase is. No phrase is shorter.
const PREFIX: usize = 8;

/// The beginning of each phrase.
const PREFIXES: [[u8; PREFIX]; PHRASES.len()] = {
    let mut prefixes = [[0; PREFIX]; PHRASES.len()];
    let mut index = 0;
    while index < PHRASES.len() {
        let Some(prefix) = PHRASES[index].as_bytes().first_chunk() else { panic!("a phrase is too short") };
        prefixes[index] = *prefix;
        index += 1;
    }
    prefixes
};

/// Returns JSON with each phrase replaced by its code.
pub(super) fn shorten(json: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(json.len());
    let mut rest = json;
    while let [first, after @ ..] = rest {
        let prefix = rest.first_chunk::<PREFIX>().filter(|_| FIRST.contains(first));
        let found = prefix.and_then(|prefix| {
            let phrases = (0..).zip(PREFIXES).zip(PHRASES);
            let of_prefix = phrases.filter(|((_, of), _)| of == prefix);
            let mut found = of_prefix.map(|((code, _), phrase): ((u8, _), _)| (code, phrase));
            found.find(|(_, phrase)| rest.starts_with(phrase.as_bytes()))
        });
        if let Some((code, phrase)) = found {
            short.push(code);
            rest = &rest[phrase.len()..];
        } else {
            short.push(*first);
            rest = after;
        }
    }
    short
}

/// Returns the JSON that was shortened.
pub(super) fn restore(short: &[u8]) -> Vec<u8> {
    let mut json = Vec::with_capacity(short.len() * 4);
    for byte in short {
        match PHRASES.get(usize::from(*byte)) {
            Some(phrase) => json.extend_from_slice(phrase.as_bytes()),
            None => json.push(*byte),
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_can_be_found_and_restored() {
        for (index, phrase) in PHRASES.iter().enumerate() {
            assert!(phrase.bytes().all(|byte| byte >= 32), "{phrase}");
            assert!(FIRST.contains(&phrase.as_bytes()[0]), "{phrase}");
            assert_eq!(shorten(phrase.as_bytes()), [u8::try_from(index).unwrap()], "{phrase}");
        }
        let all = PHRASES.concat() + "ü\u{7f}";
        assert_eq!(restore(&shorten(all.as_bytes())), all.as_bytes());
        let short = shorten(all.as_bytes()).len();
        assert_eq!(short, PHRASES.len() + 3);
    }

    #[test]
    fn control_characters_are_escaped_by_json() {
        let json = serde_json::to_vec(&(0..128).map(char::from).collect::<String>()).unwrap();
        assert!(json.iter().all(|byte| *byte >= 32));
        assert_eq!(restore(&shorten(&json)), json);
    }
}
