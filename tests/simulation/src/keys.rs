//! The keys of every run: some that are usable until they are changed, and one for each way in which a key
//! can be unusable.

use serde_json::{Value, json};
use simulated_aws::world::{KeyState, PlantedKey, World};

use crate::environment::{ACCOUNT, FOREIGN_ACCOUNT, REGION};
use crate::plan::Denial;

/// The number of usable keys, which come first.
pub const USABLE_KEYS: usize = 3;
/// The last key, which belongs to another account. Each key in between is unusable in a different way.
pub const FOREIGN_KEY: usize = 11;
/// The alias in the specs.
pub const ALIAS: &str = "alias/orders";
/// The object that `key.objectRef` references.
pub const KEY_OBJECT: &str = "orders-key";

/// The key that does not exist.
const MISSING_KEY: usize = 10;

/// Returns the ARN of a key.
pub fn arn(number: usize) -> String {
    let (account, region) = match number {
        FOREIGN_KEY => (FOREIGN_ACCOUNT, REGION),
        9 => (ACCOUNT, "us-east-1"),
        _ => (ACCOUNT, REGION),
    };
    format!("arn:aws:kms:{region}:{account}:key/{}", id(number))
}

/// Returns the id of a key. It differs from the ids of the keys that the simulated AWS creates by itself.
fn id(number: usize) -> String {
    format!("4b000000-0000-4000-8000-{number:012x}")
}

/// Creates all keys and the alias in the simulated AWS.
pub fn plant(world: &mut World) {
    for number in (0..=FOREIGN_KEY).filter(|number| *number != MISSING_KEY) {
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
            FOREIGN_KEY => FOREIGN_ACCOUNT.clone_into(&mut key.account),
            _ => {}
        }
        world.plant_key(key);
    }
    world.plant_alias(ALIAS, &arn(0));
}

/// Returns a key policy that denies an action to all principals.
pub fn policy(denial: Denial) -> Value {
    let mut statements = vec![json!({ "Effect": "Allow", "Principal": "*", "Action": "kms:*" })];
    let denied = match denial {
        Denial::None => None,
        Denial::Use => Some(json!(["kms:CreateGrant", "kms:GenerateDataKey", "kms:Encrypt", "kms:Decrypt"])),
        Denial::Describe => Some(json!(["kms:DescribeKey"])),
    };
    statements.extend(denied.map(|actions| json!({ "Effect": "Deny", "Principal": "*", "Action": actions })));
    json!({ "Statement": statements })
}

/// Makes the usable keys usable again.
pub fn recover(world: &mut World) {
    for number in 0..USABLE_KEYS {
        if let Some(key) = world.key_mut(&arn(number)) {
            key.state = KeyState::Enabled;
            key.policy = policy(Denial::None);
        }
    }
}
