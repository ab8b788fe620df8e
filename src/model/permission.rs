//! What a resource may do: which streams, with which keys, and whether it may turn encryption off.
//!
//! Until policies say otherwise there is one rule for all namespaces: streams and keys of the operator's own account,
//! and no Disable unless the operator's flag allows it. It is asked before any call of AWS.

use super::key::Key;
use super::stream::{Account, Partition, StreamArn};

/// What the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The account whose streams and keys may be used.
    pub account: Account,
    /// Its partition.
    pub partition: Partition,
    /// Whether encryption may be turned off.
    pub allow_disable: bool,
    /// How many calls a stream gets in 24 hours, of AWS's 25.
    pub max_calls_per_day: u32,
}

/// What is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A stream of another account.
    Stream,
    /// A key of another account.
    Key,
    /// Turning encryption off, now or when the resource is deleted.
    Disable,
}

impl Permission {
    /// Whether this stream may be looked at and changed.
    pub fn stream(&self, stream: &StreamArn) -> Result<(), Refusal> {
        if stream.account == self.account && stream.partition == self.partition {
            Ok(())
        } else {
            Err(Refusal::Stream)
        }
    }

    /// Whether this key may be used.
    pub fn key(&self, key: &Key) -> Result<(), Refusal> {
        match key {
            Key::AwsOwned => Ok(()),
            Key::Customer(arn) if arn.account == self.account && arn.partition == self.partition => Ok(()),
            Key::Customer(_) | Key::Unresolved(_) => Err(Refusal::Key),
        }
    }

    /// Whether encryption may be turned off.
    pub fn disable(&self) -> Result<(), Refusal> {
        if self.allow_disable { Ok(()) } else { Err(Refusal::Disable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission() -> Permission {
        Permission {
            account: "111122223333".parse().unwrap(),
            partition: "aws".parse().unwrap(),
            allow_disable: false,
            max_calls_per_day: 20,
        }
    }

    #[test]
    fn only_streams_and_keys_of_the_own_account_are_allowed() {
        let own: StreamArn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks".parse().unwrap();
        let foreign: StreamArn = "arn:aws:kinesis:eu-west-1:444455556666:stream/clicks".parse().unwrap();
        let china: StreamArn = "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/clicks".parse().unwrap();
        assert_eq!(permission().stream(&own), Ok(()));
        assert_eq!(permission().stream(&foreign), Err(Refusal::Stream));
        assert_eq!(permission().stream(&china), Err(Refusal::Stream));

        let key =
            |account: &str| Key::Customer(format!("arn:aws:kms:eu-west-1:{account}:key/1").parse().unwrap());
        assert_eq!(permission().key(&key("111122223333")), Ok(()));
        assert_eq!(permission().key(&key("444455556666")), Err(Refusal::Key));
        assert_eq!(permission().key(&Key::AwsOwned), Ok(()));
    }

    #[test]
    fn encryption_is_not_turned_off_unless_allowed() {
        assert_eq!(permission().disable(), Err(Refusal::Disable));
        assert_eq!(Permission { allow_disable: true, ..permission() }.disable(), Ok(()));
    }
}
