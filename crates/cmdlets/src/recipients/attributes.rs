//! Parameters that the cmdlets for recipients share, and what they do to one.

use super::object::CUSTOM_ATTRIBUTES;
use crate::{
    context::Call,
    error::CommandError,
    lookup::{parse_proxies, smtp_address},
};
use rehome_command::{Parameter, ParameterType as T, Parameters, Value};
use rehome_domain::{
    address::{LegacyExchangeDn, ProxyAddress, SmtpAddress},
    id::RecipientId,
    naming::{
        MAX_DISPLAY_NAME, MAX_NAME, checked_alias, checked_text, default_alias, edited_addresses, replaced_addresses,
        with_primary,
    },
    recipient::{Recipient, RecipientKind},
};
use rehome_store::Tx;
use uuid::Uuid;

/// `-Identity` of a Get: without it, all.
pub(super) fn optional_identity(what: &str) -> Parameter {
    Parameter::new(
        "Identity",
        T::Identity,
        &format!("The {what}: Name, Alias, any address, Guid, ExchangeGuid, UserPrincipalName or LegacyExchangeDN. Without it, all."),
    )
    .position(1)
    .pipeline()
}

/// `-Identity` of a cmdlet that changes one object.
pub(super) fn identity(what: &str) -> Parameter {
    Parameter::new(
        "Identity",
        T::Identity,
        &format!("The {what}: Name, Alias, any address, Guid, ExchangeGuid, UserPrincipalName or LegacyExchangeDN."),
    )
    .mandatory()
    .position(1)
    .pipeline()
}

pub(super) fn result_size() -> Parameter {
    Parameter::new("ResultSize", T::Unlimited, "Most objects to return; 1000 unless given.")
}

/// Parameters of New-… for names.
pub(super) fn new_names() -> Vec<Parameter> {
    vec![
        Parameter::new("Name", T::Text, "Unique in the organisation, at most 64 characters.")
            .mandatory()
            .position(1),
        Parameter::new(
            "DisplayName",
            T::Text,
            "Shown in address lists, at most 256 characters; the Name unless given.",
        ),
        Parameter::new(
            "Alias",
            T::Text,
            "Unique in the organisation; made from the sign-in name or the Name unless given.",
        ),
    ]
}

/// Parameters of Set-… that every kind of recipient has.
pub(super) fn set_common() -> Vec<Parameter> {
    let mut all = vec![
        Parameter::new("Name", T::Text, "A new Name."),
        Parameter::new("DisplayName", T::Text, "A new DisplayName."),
        Parameter::new("Alias", T::Text, "A new Alias; addresses stay."),
        Parameter::new(
            "EmailAddresses",
            T::EditableList,
            "Proxy addresses: SMTP: marks the primary one, smtp: further ones, x500: a LegacyExchangeDN it answers for.",
        ),
        Parameter::new(
            "WindowsEmailAddress",
            T::Text,
            "A new primary address; the present one stays as a further address. Not together with -EmailAddresses.",
        ),
        Parameter::new(
            "HiddenFromAddressListsEnabled",
            T::Boolean,
            "Whether address lists leave it out.",
        ),
    ];
    for number in 1..=CUSTOM_ATTRIBUTES {
        all.push(
            Parameter::new(
                &format!("CustomAttribute{number}"),
                T::Text,
                "Free text, at most 1,024 characters.",
            )
            .nullable(),
        );
    }
    all
}

/// Name, DisplayName, Alias and sign-in name of a new recipient.
pub(super) struct Names {
    pub name: String,
    pub display_name: String,
    pub alias: String,
    pub sign_in_name: Option<SmtpAddress>,
}

impl Names {
    pub(super) fn of(parameters: &Parameters) -> Result<Self, CommandError> {
        let name = checked_text("Name", parameters.text("Name").unwrap_or_default(), MAX_NAME)?;
        let display_name = match parameters.text("DisplayName") {
            Some(text) => checked_text("DisplayName", text, MAX_DISPLAY_NAME)?,
            None => name.clone(),
        };
        let sign_in_name = smtp_address(parameters, "MicrosoftOnlineServicesID")?;
        let alias = match parameters.text("Alias") {
            Some(alias) => checked_alias(alias)?,
            None => default_alias(sign_in_name.as_ref(), &name),
        };
        Ok(Self {
            name,
            display_name,
            alias,
            sign_in_name,
        })
    }

    /// The recipient with these names; its LegacyExchangeDN is made here, once.
    pub(super) async fn recipient(
        self,
        call: &Call<'_>,
        tx: &mut Tx,
        primary: &SmtpAddress,
        kind: RecipientKind,
    ) -> Result<Recipient, CommandError> {
        let tenant = tx.tenant_get(call.tenant()).await?;
        let organisation = tenant.map_or_else(|| primary.domain().clone(), |t| t.initial_domain);
        let id = RecipientId(Uuid::new_v4());
        Ok(Recipient {
            id,
            tenant: call.tenant(),
            legacy_exchange_dn: LegacyExchangeDn::for_recipient(&organisation, id, &self.alias),
            name: self.name,
            alias: self.alias,
            display_name: self.display_name,
            user_principal_name: self.sign_in_name.map(|n| n.to_string()),
            email_addresses: vec![ProxyAddress::Primary(primary.clone())],
            kind,
            hidden: false,
            custom_attributes: Vec::new(),
            created: call.ctx.now,
            changed: call.ctx.now,
        })
    }
}

/// Does what the parameters of [`set_common`] say; returns warnings.
pub(super) fn apply_common(call: &Call<'_>, recipient: &mut Recipient) -> Result<Vec<String>, CommandError> {
    let p = call.parameters;
    if let Some(name) = p.text("Name") {
        recipient.name = checked_text("Name", name, MAX_NAME)?;
    }
    if let Some(name) = p.text("DisplayName") {
        recipient.display_name = checked_text("DisplayName", name, MAX_DISPLAY_NAME)?;
    }
    if let Some(alias) = p.text("Alias") {
        recipient.alias = checked_alias(alias)?;
    }
    if let Some(hidden) = p.bool("HiddenFromAddressListsEnabled") {
        recipient.hidden = hidden;
    }
    for number in 1..=CUSTOM_ATTRIBUTES {
        let name = format!("CustomAttribute{number}");
        let text = match p.get(&name) {
            Some(Value::Text(text)) => text.as_str(),
            Some(Value::Null) => "",
            _ => continue,
        };
        if text.chars().count() > 1024 {
            return Err(CommandError::parameter(
                &name,
                format!("{name} is longer than 1,024 characters."),
                "",
            ));
        }
        recipient.custom_attributes.retain(|(n, _)| *n != number);
        if !text.is_empty() {
            recipient.custom_attributes.push((number, text.to_owned()));
        }
    }
    recipient.changed = call.ctx.now;
    apply_addresses(p, recipient)
}

fn apply_addresses(p: &Parameters, recipient: &mut Recipient) -> Result<Vec<String>, CommandError> {
    let primaries: Vec<&str> = ["WindowsEmailAddress", "PrimarySmtpAddress"]
        .into_iter()
        .filter(|name| p.given(name))
        .collect();
    if primaries.len() + usize::from(p.given("EmailAddresses")) > 1 {
        return Err(CommandError::parameter(
            "EmailAddresses",
            "-EmailAddresses, -PrimarySmtpAddress and -WindowsEmailAddress cannot be used together.",
            "In a list the entry that begins with SMTP: is the primary address.",
        ));
    }
    if let Some(name) = primaries.first()
        && let Some(primary) = smtp_address(p, name)?
    {
        recipient.email_addresses = with_primary(std::mem::take(&mut recipient.email_addresses), &primary);
    }
    if let Some(list) = p.list("EmailAddresses") {
        recipient.email_addresses = replaced_addresses(parse_proxies("EmailAddresses", &list)?)?;
    }
    let mut warnings = Vec::new();
    if let Some((add, remove)) = p.edits("EmailAddresses") {
        let (add, remove) = (
            parse_proxies("EmailAddresses", &add)?,
            parse_proxies("EmailAddresses", &remove)?,
        );
        let (list, missing) = edited_addresses(&recipient.email_addresses, &add, &remove)?;
        recipient.email_addresses = list;
        warnings.extend(
            missing
                .iter()
                .map(|a| format!("{a} was not among the addresses of '{}'.", recipient.name)),
        );
    }
    Ok(warnings)
}
