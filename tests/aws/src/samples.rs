//! The world of `config/samples`: the streams, and the keys, some of them unusable.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::world::{KeyState, PlantedKey, PlantedStream, Service, Settings, Source, World};

/// The key of `04-re-key-to-a-denied-key.yaml`, whose policy allows no one to create a grant.
pub const DENIED: &str = "44444444-4444-4444-8444-444444444444";
/// The key of `05-disabled-key-waits.yaml`, which is disabled.
pub const DISABLED: &str = "55555555-5555-4555-8555-555555555555";

/// Creates the streams and keys of `config/samples`. A change takes 3 seconds here; on AWS it takes seconds
/// to minutes.
pub fn world() -> World {
    let three = SignedDuration::from_secs(3);
    let mut world =
        World::new(Settings { enabling: three, disabling: three, updating: three, ..Settings::default() });
    for name in ["clicks", "payments", "audit", "orders"] {
        world.plant_stream(PlantedStream { name: name.to_owned(), ..PlantedStream::default() });
    }
    let source = Source::KinesisStreamAsSource;
    world.plant_stream(PlantedStream { name: "replica".to_owned(), source, ..PlantedStream::default() });
    let (service, name) = (Service::Kinesis, "telemetry".to_owned());
    world.plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
    let payments = world.plant_key(key("22222222-2222-4222-8222-222222222222"));
    world.plant_alias("alias/payments", &payments);
    world.plant_key(key("33333333-3333-4333-8333-333333333333"));
    world.plant_key(PlantedKey { policy: Some(policy(&["Allow", "Deny"])), ..key(DENIED) });
    world.plant_key(PlantedKey { state: KeyState::Disabled, ..key(DISABLED) });
    world
}

/// Returns a usable key with this id, to be planted over an unusable one.
pub fn mended(id: &str) -> PlantedKey {
    PlantedKey { policy: Some(policy(&["Allow"])), ..key(id) }
}

fn key(id: &str) -> PlantedKey {
    PlantedKey { id: id.to_owned(), ..PlantedKey::default() }
}

/// Returns a key policy that allows all principals everything; with the effect "Deny", it denies all
/// principals to create a grant.
fn policy(effects: &[&str]) -> Value {
    let statement = |effect: &&str| {
        let action = if *effect == "Deny" { "kms:CreateGrant" } else { "kms:*" };
        json!({"Effect": effect, "Principal": "*", "Action": action, "Resource": "*"})
    };
    json!({"Version": "2012-10-17", "Statement": effects.iter().map(statement).collect::<Vec<_>>()})
}
