//! The administrator's commands, declared once: verb, noun, parameters, types, role, effect, help, handler.
//!
//! A cmdlet loads, decides in `domain`, and saves in one transaction together with its audit record. It works in the
//! caller's tenant and nowhere else: no handler is given another tenant id.
//!
//! Never: know HTTP, XML, HTML or a terminal.

mod context;
mod error;
mod lookup;
mod migration;
mod partners;
mod recipients;
mod roles;

pub use context::{Context, Output};
pub use error::{Category, CommandError};

use context::Call;
use rehome_command::{Declaration, Effect, Parameters, bind_json};
use rehome_domain::error_id::ErrorId;
use rehome_identity::AdminCaller;
use std::{future::Future, pin::Pin, sync::LazyLock};

type Handled<'a> = Pin<Box<dyn Future<Output = Result<Output, CommandError>> + Send + 'a>>;
type Handler = for<'a> fn(&'a Call<'a>) -> Handled<'a>;

/// A cmdlet: what it is called, takes and returns, and what it does.
#[derive(Clone)]
pub struct Cmdlet {
    /// Its declaration, whole. Callers see it through [`visible`].
    pub declaration: Declaration,
    handler: Handler,
}

impl Cmdlet {
    pub(crate) fn new(declaration: Declaration, handler: Handler) -> Self {
        Self { declaration, handler }
    }
}

/// A [`Handler`] from an async function.
macro_rules! handler {
    ($function:path) => {
        |call| Box::pin($function(call))
    };
}
pub(crate) use handler;

static REGISTRY: LazyLock<Vec<Cmdlet>> = LazyLock::new(|| {
    let mut all = [recipients::cmdlets(), partners::cmdlets(), migration::cmdlets()].concat();
    all.sort_by_key(|c| (c.declaration.noun.clone(), c.declaration.verb.clone()));
    all
});

/// Every cmdlet, by noun and verb.
#[must_use]
pub fn registry() -> &'static [Cmdlet] {
    &REGISTRY
}

/// The declarations that exist for a caller.
#[must_use]
pub fn visible(caller: &AdminCaller) -> Vec<Declaration> {
    registry()
        .iter()
        .filter_map(|c| roles::visible_to(caller, &c.declaration))
        .collect()
}

/// The cmdlet of this name, with its declaration as the caller sees it.
fn found(caller: &AdminCaller, name: &str) -> Result<(&'static Cmdlet, Declaration), CommandError> {
    let cmdlet = registry()
        .iter()
        .find(|c| c.declaration.name().eq_ignore_ascii_case(name));
    cmdlet.and_then(|c| Some((c, roles::visible_to(caller, &c.declaration)?))).ok_or_else(|| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        CommandError::new(
            ErrorId::CommandNotFound,
            shown.as_str(),
            format!(
                "The term '{shown}' is not recognized as the name of a cmdlet, function, script file, or operable program."
            ),
            "rehome --help lists the cmdlets that your roles allow.",
        )
    })
}

/// Runs a cmdlet with parameters from a JSON object, bound here to what the caller may use.
///
/// # Errors
/// [`CommandError`]; then nothing was changed. A refused change is in the audit log.
pub async fn invoke_json(
    ctx: &Context,
    name: &str,
    parameters: &serde_json::Map<String, serde_json::Value>,
) -> Result<Output, CommandError> {
    let (_, declaration) = found(&ctx.caller, name)?;
    let parameters = bind_json(&declaration, parameters)?;
    invoke(ctx, name, parameters).await
}

/// Runs a cmdlet with bound parameters.
///
/// # Errors
/// [`CommandError`]; then nothing was changed. A refused change is in the audit log.
pub async fn invoke(ctx: &Context, name: &str, parameters: Parameters) -> Result<Output, CommandError> {
    let (cmdlet, declaration) = found(&ctx.caller, name)?;
    // Binding may have been done against another declaration than the caller's.
    if let Some((unknown, _)) = parameters.iter().find(|(n, _)| declaration.parameter(n).is_none()) {
        return Err(rehome_command::BindError::UnknownParameter(unknown.to_owned()).into());
    }
    let name = declaration.name();
    let call = Call {
        ctx,
        name: &name,
        parameters: &parameters,
    };
    let result = (cmdlet.handler)(&call).await;
    match (&result, declaration.effect) {
        (Err(error), Effect::Change | Effect::Destroy) => {
            tracing::info!(cmdlet = name, error = error.id.as_str(), correlation_id = %ctx.correlation, "refused: {}", error.message);
            call.record_refusal(error).await;
        }
        (Err(error), Effect::Read) => {
            tracing::info!(cmdlet = name, error = error.id.as_str(), correlation_id = %ctx.correlation, "failed: {}", error.message);
        }
        (Ok(_), Effect::Change | Effect::Destroy) => {
            tracing::info!(cmdlet = name, caller = ctx.caller.name, correlation_id = %ctx.correlation, "done");
        }
        (Ok(_), Effect::Read) => {}
    }
    result
}

#[cfg(test)]
mod tests;
