//! Phrases of JSON that are the same in every object of this operator, and their one-byte codes.
//!
//! Field names and usual values are most of the text of a small object. A phrase that no object contains any more does
//! no harm, and a new field needs none. Pure; what [`shorten`] returns is never stored outside the process.

/// The phrases: the code of each is its index. JSON has no control characters, so no other byte of a text is below 32.
/// If one is the beginning of another, the longer one comes first.
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

/// The number of bytes by which [`phrase_at`] selects phrases before it compares them. No phrase is shorter.
const BEGINNING: usize = 6;

/// For each position in the beginning of a phrase, and each byte, the phrases that have this byte there. Bit 0 stands for the
/// phrase with the code 0.
const BEGINNINGS: [[u32; 256]; BEGINNING] = {
    let mut beginnings = [[0; 256]; BEGINNING];
    let mut code = 0;
    while code < PHRASES.len() {
        let mut position = 0;
        while position < BEGINNING {
            beginnings[position][PHRASES[code].as_bytes()[position] as usize] |= 1 << code;
            position += 1;
        }
        code += 1;
    }
    beginnings
};

/// Returns JSON with each phrase replaced by its code.
pub(super) fn shorten(json: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(json.len());
    let (mut copied, mut position) = (0, 0);
    while position < json.len() {
        if let Some((code, phrase)) = phrase_at(&json[position..]) {
            short.extend_from_slice(&json[copied..position]);
            short.push(code);
            position += phrase.len();
            copied = position;
        } else {
            position += 1;
        }
    }
    short.extend_from_slice(&json[copied..]);
    short
}

/// Returns the phrase with which this text begins, and its code. At most positions of a text, its first byte shows that no phrase
/// begins there.
fn phrase_at(text: &[u8]) -> Option<(u8, &'static str)> {
    let mut possible = u32::MAX;
    for (byte, phrases) in text.iter().zip(&BEGINNINGS) {
        possible &= phrases[usize::from(*byte)];
        if possible == 0 {
            return None;
        }
    }
    let is_possible = |code: u8| possible & (1 << code) != 0;
    (0..).zip(PHRASES).find(|(code, phrase)| is_possible(*code) && text.starts_with(phrase.as_bytes()))
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
