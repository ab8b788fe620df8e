//! The session of each principal: the operator's own, or one of a role for one resource.
//!
//! Every session is kept until shortly before it ends. One is never given to another principal than the one that it was
//! made for: the role, its external id and the resource are all part of what it may do. It writes to nobody, and never logs a secret.

use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use tokio::sync::Mutex;
use tracing::debug;

use super::assumed::{Assume, LASTS};
use super::bounded::Bounded;
use super::credentials::{Clock, Kept, Own, Session, Slot};
use super::faults::no_session;
use super::pacing::Turn;
use super::port::Urgency;
use super::requests::Requests;
use super::source::Source;
use crate::model::fault::{Fault, Operation};
use crate::model::principal::{Principal, Role};
use crate::model::stream::Region;

/// The sessions of roles that are kept, about 3 KB each. With more resources than this that have a role, all looked at in
/// turn, hardly one is found again: each look then assumes its role anew, as fast as the pacer lets it, and that is what
/// such an operator must live with. Their number is what users write; the memory is not.
const SESSIONS: usize = 4096;

/// Sessions by principal. Clones share them.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Inner>);

struct Inner {
    own: Arc<Own>,
    assume: Assume,
    assumed: Bounded<Principal, Assumed>,
    clock: Clock,
}

/// A role's session for one principal, once there is one. One request at a time asks for it.
type Assumed = Arc<Mutex<Slot>>;

impl Sessions {
    /// The sessions of `source`'s credentials and of the roles that these may assume, dated by `clock`.
    pub(super) fn new(
        source: impl Into<Source>,
        config: &SdkConfig,
        region: Region,
        requests: Requests,
        clock: Clock,
    ) -> Self {
        Self::at_most(SESSIONS, source, config, region, requests, clock)
    }

    fn at_most(
        limit: usize,
        source: impl Into<Source>,
        config: &SdkConfig,
        region: Region,
        requests: Requests,
        clock: Clock,
    ) -> Self {
        let own = Arc::new(Own::new(source, clock.clone()));
        let assume = Assume::new(config, region, requests, own.clone());
        Self(Arc::new(Inner { own, assume, assumed: Bounded::new(limit), clock }))
    }

    /// The session with which `operation` may be asked for by a principal: one that lasts for `lasting` more. Where a role
    /// is to be assumed first, its fault is that of [`Operation::AssumeRole`].
    pub(super) async fn of(
        &self,
        operation: Operation,
        by: &Principal,
        urgency: Urgency,
        lasting: Duration,
    ) -> Result<Session, Fault> {
        match &by.role {
            Some(role) => self.assumed(role, by, urgency, lasting).await,
            None => self.0.own.session(lasting).await.map_err(|error| no_session(operation, &error)),
        }
    }

    /// Gives `session` up where a fault shows that AWS does not accept it any more. Whether the next one may be another.
    pub(super) async fn is_another_due(
        &self,
        by: &Principal,
        session: &Session,
        fault: Option<&Fault>,
    ) -> bool {
        if !fault.is_some_and(Fault::rejects_the_session) {
            return false;
        }
        match &by.role {
            Some(_) => {
                let slot = self.0.assumed.get_or_put_with(by, Assumed::default);
                slot.lock().await.give_up(session, (self.0.clock)())
            }
            None => self.0.own.rejected(session).await,
        }
    }

    async fn assumed(
        &self,
        role: &Role,
        by: &Principal,
        urgency: Urgency,
        lasting: Duration,
    ) -> Result<Session, Fault> {
        let Inner { assume, assumed, clock, .. } = &*self.0;
        let slot = assumed.get_or_put_with(by, Assumed::default);
        let mut slot = slot.lock().await;
        if let Some(session) = slot.kept.as_ref().and_then(|kept| kept.session(clock(), lasting)) {
            return Ok(session);
        }
        // Counted from before the request, by this clock: whatever AWS's clock says, it ends no later than this.
        let since = clock();
        let credentials = assume.credentials(role, by, &Turn::of(by, urgency)).await?;
        debug!(role = %role.arn, namespace = by.namespace, resource = by.resource, "assumed the role");
        let ends = since + LASTS;
        let until = credentials.expiry().map_or(ends, |expiry| expiry.min(ends));
        Ok(slot.kept.insert(Kept::new(credentials, since, until)).session_at(clock()))
    }
}

#[cfg(test)]
mod tests;
