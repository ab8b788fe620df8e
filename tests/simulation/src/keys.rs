//! The keys of every run: some that work until somebody changes them, and one for each way in which a key can be wrong.

use serde_json::{Value, json};
use simulated_aws::world::{KeyState, PlantedKey, World};

use crate::plan::Denial;
use crate::scene::{ACCOUNT, FOREIGN_ACCOUNT, REGION};

/// The first keys work.
pub const GOOD: usize = 3;
/// The last one is of another account. Those in between are each wrong in a way of their own.
pub const FOREIGN: usize = 11;
/// The alias that specs name.
pub const ALIAS: &str = "alias/orders";
/// The object that `key.ref` names.
pub const KEY_OBJECT: &str = "orders-key";

/// The key that nobody has made.
const MISSING: usize = 10;

/// The ARN of a key.
#[must_use]
pub fn arn(number: usize) -> String {
    let (account, region) = match number {
        FOREIGN => (FOREIGN_ACCOUNT, REGION),
        9 => (ACCOUNT, "us-east-1"),
        _ => (ACCOUNT, REGION),
    };
    format!("arn:aws:kms:{region}:{account}:key/{}", id(number))
}

/// Apart from those that the simulated AWS makes by itself.
fn id(number: usize) -> String {
    format!("4b000000-0000-4000-8000-{number:012x}")
}

/// Plants them all, and the alias.
pub fn plant(world: &mut World) {
    for number in (0..=FOREIGN).filter(|number| *number != MISSING) {
        let mut key = PlantedKey { id: id(number), ..PlantedKey::default() };
        match number {
            3 => "RSA_2048".clone_into(&mut key.spec),
            4 => {
                "RSA_2048".clone_into(&mut key.spec);
                "SIGN_VERIFY".clone_into(&mut key.usage);
            }
            5 => "AWS".clone_into(&mut key.manager),
            6 => key.state = KeyState::PendingImport,
            7 => key.state = KeyState::Unavailable,
            8 => key.state = KeyState::PendingDeletion,
            9 => "us-east-1".clone_into(&mut key.region),
            FOREIGN => FOREIGN_ACCOUNT.clone_into(&mut key.account),
            _ => {}
        }
        world.plant_key(key);
    }
    world.plant_alias(ALIAS, &arn(0));
}

/// A key policy that denies something to everybody.
#[must_use]
pub fn policy(denial: Denial) -> Value {
    let mut statements = vec![json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*" })];
    let denied = match denial {
        Denial::Nothing => None,
        Denial::Use => Some(json!(["kms:CreateGrant", "kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"])),
        Denial::Describe => Some(json!(["kms:DescribeKey"])),
    };
    statements.extend(denied.map(|actions| json!({ "Effect": "Deny", "Principal": "*", "Action": actions })));
    json!({ "Statement": statements })
}

/// Makes the good keys work again.
pub fn mend(world: &mut World) {
    for number in 0..GOOD {
        if let Some(key) = world.key_mut(&arn(number)) {
            key.state = KeyState::Enabled;
            key.deletion = None;
            key.policy = policy(Denial::Nothing);
        }
    }
}
