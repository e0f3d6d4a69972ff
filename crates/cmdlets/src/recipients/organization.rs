//! Get-AcceptedDomain, Get-OrganizationConfig.

use super::attributes::result_size;
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::ResultSize,
    roles::{ORGANIZATION_CONFIGURATION, REMOTE_AND_ACCEPTED_DOMAINS, VIEW_ONLY_CONFIGURATION},
};
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property};

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new(
                "Get",
                "AcceptedDomain",
                Effect::Read,
                &[REMOTE_AND_ACCEPTED_DOMAINS, VIEW_ONLY_CONFIGURATION],
                "Shows the domains for which the organisation accepts mail.",
            )
            .description(
                "Domains are added and removed by the operator on the machine: rehome tenant domain add|remove.",
            )
            .parameters([
                Parameter::new("Identity", T::Identity, "The domain. Without it, all.")
                    .position(1)
                    .pipeline(),
                result_size(),
            ])
            .output([
                Property::column("Name", "The domain."),
                Property::column("DomainName", "The domain."),
                Property::column("DomainType", "Authoritative."),
                Property::column("Default", "Whether addresses are made in it."),
            ])
            .example("Get-AcceptedDomain", "Shows all."),
            handler!(get_accepted_domain),
        ),
        Cmdlet::new(
            Declaration::new(
                "Get",
                "OrganizationConfig",
                Effect::Read,
                &[ORGANIZATION_CONFIGURATION, VIEW_ONLY_CONFIGURATION],
                "Shows the organisation, with the GUID that partners need.",
            )
            .output([
                Property::column("Name", "The initial domain."),
                Property::column("DisplayName", "Shown to partners."),
                Property::column(
                    "Guid",
                    "The tenant's GUID: a partner puts it into DomainNames of his organization relationship.",
                ),
                Property::new("OrganizationId", "The initial domain."),
                Property::new("IsDehydrated", "Always false: tenants are made ready for use."),
                Property::new("ExchangeVersion", "Version of this program."),
            ])
            .example("Get-OrganizationConfig", "Shows the tenant's GUID."),
            handler!(get_organization_config),
        ),
    ]
}

async fn get_accepted_domain(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let mut domains = tx.accepted_domain_list(call.tenant()).await?;
    if let Some(identity) = call.parameters.text("Identity") {
        domains.retain(|d| d.name.as_str().eq_ignore_ascii_case(identity.trim()));
        if domains.is_empty() {
            let organisation = call.organisation(&mut tx).await?;
            return Err(CommandError::not_found(
                identity,
                &organisation,
                "Get-AcceptedDomain lists the domains.",
            ));
        }
    }
    let cut = ResultSize::of(call.parameters).cut(&mut domains);
    let shown = domains.into_iter().map(|d| {
        Object::new()
            .with("Name", d.name.as_str())
            .with("DomainName", d.name.as_str())
            .with("DomainType", "Authoritative")
            .with("Default", d.default)
    });
    Ok(Output::many(shown).warning(cut))
}

async fn get_organization_config(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    let organisation = call.organisation(&mut tx).await?;
    let display_name = tx.tenant_get(call.tenant()).await?.map(|t| t.display_name);
    Ok(Output::one(
        Object::new()
            .with("Name", organisation.as_str())
            .with("DisplayName", display_name)
            .with("Guid", call.tenant().0)
            .with("OrganizationId", organisation.as_str())
            .with("IsDehydrated", false)
            .with("ExchangeVersion", env!("CARGO_PKG_VERSION")),
    ))
}
