//! What must be reachable: the situations for which the protocol was made. A check that never meets them proves nothing.
//!
//! Each is told from one world alone. It changes nothing and judges nothing.

use stream_encryption_api::ledger::Outcome;

use crate::world::{At, Request, World};

/// Who waits for the answer to a request.
pub(crate) fn waiting_for(world: &World, request: &Request) -> Option<usize> {
    let waits = |replica: &usize| {
        world.replicas[*replica].as_ref().is_some_and(|visit| {
            visit.at == At::Waiting && visit.planned.as_ref().is_some_and(|call| call.id == request.id)
        })
    };
    (0..world.replicas.len()).find(waits)
}

/// AWS has carried out a call whose answer was lost, and the ledger knows that from a look.
pub(crate) fn adopted(world: &World) -> bool {
    let accepted = |id: &str| {
        let mut calls = world.ledger.iter().flat_map(|ledger| &ledger.calls);
        calls.any(|call| call.id == id && call.outcome == Outcome::Accepted)
    };
    world.aws.log.iter().any(|call| call.unheard && accepted(&call.id))
}

/// The ledger holds a call that AWS does not know, that is not on its way, and that nobody will send any more.
pub(crate) fn never_sent(world: &World) -> bool {
    world.is_idle()
        && world.ledger.iter().flat_map(|ledger| &ledger.calls).any(|call| {
            call.outcome == Outcome::Pending && !world.aws.log.iter().any(|counted| counted.id == call.id)
        })
}

/// A request is on its way, and nobody waits for its answer.
pub(crate) fn forgotten(world: &World) -> bool {
    world.wire.iter().any(|request| waiting_for(world, request).is_none())
}

/// Both replicas have decided to call.
pub(crate) fn about_to_reserve(world: &World) -> bool {
    world.replicas.iter().flatten().filter(|visit| visit.at == At::Checked).count() == 2
}

/// AWS has counted a call that arrived late.
pub(crate) fn late(world: &World) -> bool {
    world.aws.log.iter().any(|call| call.late)
}

/// All faults are over, and the stream is as it is asked for.
pub(crate) fn as_asked(world: &World) -> bool {
    let over = world.faults == 0 && world.changes == 0 && world.is_idle() && !world.aws.is_changing();
    over && world.resource.wish.is(world.aws.view.active_key)
}
