//! What a cmdlet runs in, and what it gives back.

use crate::error::{CommandError, error_chain};
use jiff::Timestamp;
use rehome_command::{Object, Parameters};
use rehome_domain::id::{CorrelationId, TenantId};
use rehome_identity::{AdminCaller, Identity};
use rehome_migrate::{source::Source, target::Target};
use rehome_platform::Platforms;
use rehome_store::{AuditEntry, Store, Tx};

/// Everything a cmdlet may use. The tenant is always the caller's own.
#[derive(Clone)]
pub struct Context {
    /// The state.
    pub store: Store,
    /// Applications, consents, sealed secrets.
    pub identity: Identity,
    /// The source's half: what leaves.
    pub source: Source,
    /// The target's half: batches and moves.
    pub target: Target,
    /// Where mailboxes lie.
    pub platforms: Platforms,
    /// Most rows of a batch's CSV file.
    pub max_users_per_batch: usize,
    /// The time of the request.
    pub now: Timestamp,
    /// Who runs it.
    pub caller: AdminCaller,
    /// His network address, for the audit log.
    pub origin: String,
    /// Stands in both sides' logs.
    pub correlation: CorrelationId,
}

/// What a cmdlet returns.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Objects, in order.
    pub objects: Vec<Object>,
    /// What the administrator should know beside them, one sentence or two each.
    pub warnings: Vec<String>,
}

impl Output {
    /// One object without warnings.
    pub(crate) fn one(object: Object) -> Self {
        Self {
            objects: vec![object],
            warnings: Vec::new(),
        }
    }

    /// Several objects without warnings.
    pub(crate) fn many(objects: impl IntoIterator<Item = Object>) -> Self {
        Self {
            objects: objects.into_iter().collect(),
            warnings: Vec::new(),
        }
    }

    /// Nothing.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// With these warnings.
    pub(crate) fn warning(mut self, warnings: impl IntoIterator<Item = String>) -> Self {
        self.warnings.extend(warnings);
        self
    }
}

/// One run of one cmdlet.
pub(crate) struct Call<'a> {
    /// What it runs in.
    pub ctx: &'a Context,
    /// The cmdlet's name.
    pub name: &'a str,
    /// Its parameters.
    pub parameters: &'a Parameters,
}

impl Call<'_> {
    /// The caller's tenant; the only one there is for a cmdlet.
    pub(crate) fn tenant(&self) -> TenantId {
        self.ctx.caller.tenant
    }

    /// The name under which the organisation is known, for error texts.
    pub(crate) async fn organisation(&self, tx: &mut Tx) -> Result<String, CommandError> {
        let tenant = tx.tenant_get(self.tenant()).await?;
        Ok(tenant.map_or_else(|| self.tenant().to_string(), |t| t.initial_domain.to_string()))
    }

    /// Makes a change durable together with its audit record.
    pub(crate) async fn save(&self, tx: Tx, object: &str) -> Result<(), CommandError> {
        self.save_with(tx, object, serde_json::Value::Null).await
    }

    /// As [`Self::save`], with facts about the change that the parameters do not tell.
    pub(crate) async fn save_with(
        &self,
        mut tx: Tx,
        object: &str,
        facts: serde_json::Value,
    ) -> Result<(), CommandError> {
        let mut entry = self.audit_entry(object, "ok");
        if let (Some(parameters), serde_json::Value::Object(facts)) = (entry.parameters.as_object_mut(), facts) {
            parameters.extend(facts);
        }
        tx.audit_append(self.tenant(), &entry).await?;
        tx.commit("cmdlets.change").await?;
        Ok(())
    }

    fn audit_entry(&self, object: &str, result: &str) -> AuditEntry {
        AuditEntry {
            at: self.ctx.now,
            caller: self.ctx.caller.name.clone(),
            origin: self.ctx.origin.clone(),
            action: self.name.to_owned(),
            object: object.to_owned(),
            parameters: self.parameters.to_audit_json(),
            result: result.to_owned(),
            correlation_id: self.ctx.correlation,
        }
    }

    /// Records an attempted change that was refused.
    pub(crate) async fn record_refusal(&self, error: &CommandError) {
        let entry = self.audit_entry(&error.target, error.id.as_str());
        let written = async {
            let mut tx = self.ctx.store.write().await?;
            tx.audit_append(self.tenant(), &entry).await?;
            tx.commit("cmdlets.refused").await
        };
        if let Err(failed) = written.await {
            tracing::error!(
                error = error_chain(&failed),
                action = self.name,
                "a refused change is not in the audit log"
            );
        }
    }
}
