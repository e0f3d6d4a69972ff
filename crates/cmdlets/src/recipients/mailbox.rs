//! Get-Mailbox, New-Mailbox, Set-Mailbox, Get-Recipient.

use super::{
    attributes::{Names, apply_common, identity, new_names, optional_identity, result_size, set_common},
    object,
};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::{CommandError, error_chain},
    handler,
    lookup::{
        ResultSize, Wanted, accepted_domains, check_accepted, check_addresses_free, check_not_in_cutover, recipient,
        smtp_address,
    },
    roles::{MAIL_RECIPIENT_CREATION, MAIL_RECIPIENTS, VIEW_ONLY_RECIPIENTS},
};
use rehome_command::{Declaration, Effect, Parameter, ParameterType as T};
use rehome_domain::{
    address::SmtpAddress,
    adoption::Territory,
    error_id::ErrorId,
    id::ExchangeGuid,
    recipient::{Mailbox, MailboxState, Recipient, RecipientKind},
};
use rehome_platform::{Driver, NewMailbox, Place, PlatformError};
use rehome_store::RecipientFilter;
use uuid::Uuid;

/// Largest message that a mailbox accepts unless set otherwise, octets.
pub(super) const MAX_RECEIVE_SIZE: u64 = 150 << 20;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("Get", "Mailbox", Effect::Read, &[MAIL_RECIPIENTS, VIEW_ONLY_RECIPIENTS], "Shows mailboxes.")
                .description(
                    "ExchangeGuid and LegacyExchangeDN of a mailbox that is to move are copied into the mail user in the target organisation.",
                )
                .parameters([optional_identity("mailbox"), result_size()])
                .output(object::mailbox_properties())
                .example("Get-Mailbox reception --json", "Prints everything about one mailbox."),
            handler!(get_mailbox),
        ),
        Cmdlet::new(
            Declaration::new("New", "Mailbox", Effect::Change, &[MAIL_RECIPIENT_CREATION], "Makes a user with an empty mailbox.")
                .description(
                    "The mailbox is made on the default platform unless -Platform names another. Mailboxes that exist already are taken in with Import-Mailbox.\nPasswords of mailbox users are set on the platform or in its directory, not here.",
                )
                .parameters(new_names())
                .parameters([
                    Parameter::new(
                        "MicrosoftOnlineServicesID",
                        T::Text,
                        "Sign-in name, in an accepted domain; also the primary address unless -PrimarySmtpAddress is given.",
                    )
                    .mandatory()
                    .alias("UserPrincipalName"),
                    Parameter::new("PrimarySmtpAddress", T::Text, "The primary address, in an accepted domain."),
                    Parameter::new("Platform", T::Text, "Name of the platform that holds the contents."),
                ])
                .output(object::mailbox_properties())
                .example(
                    "New-Mailbox -Name 'Reception' -MicrosoftOnlineServicesID reception@contoso.example",
                    "Makes an empty mailbox.",
                ),
            handler!(new_mailbox),
        ),
        Cmdlet::new(
            Declaration::new("Set", "Mailbox", Effect::Change, &[MAIL_RECIPIENTS], "Changes a mailbox's properties.")
                .description("Every SMTP address of a mailbox lies in an accepted domain. Refused while a move of the mailbox is being completed.")
                .parameters([identity("mailbox")])
                .parameters(set_common())
                .parameters([Parameter::new("LitigationHoldEnabled", T::Boolean, "Puts the mailbox on hold; a hold blocks its move.")])
                .example("Set-Mailbox reception -LitigationHoldEnabled:false", "Ends a hold, so that the mailbox can move."),
            handler!(set_mailbox),
        ),
        Cmdlet::new(
            Declaration::new("Get", "Recipient", Effect::Read, &[MAIL_RECIPIENTS, VIEW_ONLY_RECIPIENTS], "Shows recipients of every kind.")
                .parameters([
                    optional_identity("recipient"),
                    Parameter::new("RecipientTypeDetails", T::Flags, "Only these kinds.").allowed(&[
                        "UserMailbox",
                        "MailUser",
                        "MailUniversalSecurityGroup",
                        "MailUniversalDistributionGroup",
                    ]),
                    result_size(),
                ])
                .output(object::recipient_properties())
                .example("Get-Recipient reception@contoso.example", "Shows whether the address is a mailbox or a mail user now."),
            handler!(get_recipient),
        ),
    ]
}

async fn get_mailbox(call: &Call<'_>) -> Result<Output, CommandError> {
    list(call, Wanted::Mailbox, RecipientFilter::Mailboxes, object::mailbox).await
}

/// One recipient by identity, or all of a kind.
pub(super) async fn list(
    call: &Call<'_>,
    wanted: Wanted,
    filter: RecipientFilter,
    shown: fn(&Recipient) -> rehome_command::Object,
) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.read().await?;
    if let Some(identity) = call.parameters.text("Identity") {
        return Ok(Output::one(shown(&recipient(call, &mut tx, identity, wanted).await?)));
    }
    let size = ResultSize::of(call.parameters);
    let mut found = tx.recipient_list(call.tenant(), filter, size.to_read()).await?;
    let cut = size.cut(&mut found);
    Ok(Output::many(found.iter().map(shown)).warning(cut))
}

async fn get_recipient(call: &Call<'_>) -> Result<Output, CommandError> {
    let Some(kinds) = call.parameters.list("RecipientTypeDetails") else {
        return list(call, Wanted::Any, RecipientFilter::All, object::recipient).await;
    };
    let mut tx = call.ctx.store.read().await?;
    let size = ResultSize::of(call.parameters);
    let mut found = match call.parameters.text("Identity") {
        Some(identity) => vec![recipient(call, &mut tx, identity, Wanted::Any).await?],
        None => tx.recipient_list(call.tenant(), RecipientFilter::All, u32::MAX).await?,
    };
    found.retain(|r| kinds.iter().any(|k| k == r.recipient_type()));
    let cut = size.cut(&mut found);
    Ok(Output::many(found.iter().map(object::recipient)).warning(cut))
}

/// A platform's failure, for the administrator.
pub(super) fn platform_error(error: &PlatformError) -> CommandError {
    CommandError::new(
        ErrorId::MailboxPlatform,
        "",
        format!("The mail platform refused: {}.", error_chain(error)),
        "The operator finds the platforms in the configuration, [platform.NAME].",
    )
}

async fn new_mailbox(call: &Call<'_>) -> Result<Output, CommandError> {
    let names = Names::of(call.parameters)?;
    let platforms = &call.ctx.platforms;
    let platform = match call.parameters.text("Platform") {
        Some(name) => name,
        None => platforms.default_platform().map_err(|e| platform_error(&e))?,
    };
    platforms.check(platform).await.map_err(|e| platform_error(&e))?;
    let sign_in_name = names.sign_in_name.clone().ok_or_else(|| {
        CommandError::parameter(
            "MicrosoftOnlineServicesID",
            "A sign-in name is needed.",
            "Give -MicrosoftOnlineServicesID.",
        )
    })?;
    let primary = smtp_address(call.parameters, "PrimarySmtpAddress")?.unwrap_or_else(|| sign_in_name.clone());

    let exchange_guid = ExchangeGuid(Uuid::new_v4());
    let location = location(call, platform, &names.alias, &primary, exchange_guid).await?;
    let mut tx = call.ctx.store.write().await?;
    let domains = accepted_domains(call, &mut tx).await?;
    check_accepted(&domains, [&primary, &sign_in_name])?;
    let mailbox = Mailbox {
        exchange_guid,
        platform: platform.to_owned(),
        location,
        state: MailboxState::Open,
        litigation_hold: false,
        max_receive_size: MAX_RECEIVE_SIZE,
    };
    let place = Place::from(&mailbox);
    let made = names
        .recipient(call, &mut tx, &primary, RecipientKind::Mailbox(mailbox))
        .await?;
    check_addresses_free(call, &mut tx, &made).await?;
    tx.recipient_insert(call.tenant(), &made).await?;
    if platforms.driver(platform).map_err(|e| platform_error(&e))? == Driver::Maildir {
        // An empty folder that stays behind when the commit fails is listed as an orphan; a row without a folder would
        // bounce mail.
        platforms.create(&place).await.map_err(|e| platform_error(&e))?;
    }
    call.save(tx, &made.name).await?;
    Ok(Output::one(object::mailbox(&made)))
}

/// Where a new mailbox lies. An account must be there, and in the organisation's domains where it is not alone.
async fn location(
    call: &Call<'_>,
    platform: &str,
    alias: &str,
    primary: &SmtpAddress,
    exchange_guid: ExchangeGuid,
) -> Result<String, CommandError> {
    let platforms = &call.ctx.platforms;
    let new = NewMailbox {
        tenant: call.tenant(),
        alias,
        primary,
        exchange_guid,
    };
    let location = platforms.new_location(platform, &new, None).await;
    let location = location.map_err(|e| platform_error(&e))?;
    if platforms.driver(platform).map_err(|e| platform_error(&e))? == Driver::Imap {
        let mut tx = call.ctx.store.read().await?;
        if !tx.territory(call.tenant()).await?.holds_account(&location) {
            let why = Territory::not_his_account(&location);
            return Err(CommandError::new(ErrorId::MailboxPlatform, &location, why, ""));
        }
        drop(tx);
        // No server is waited for inside a transaction.
        let place = Place {
            exchange_guid,
            platform: platform.to_owned(),
            location: location.clone(),
        };
        platforms.create(&place).await.map_err(|e| platform_error(&e))?;
    }
    Ok(location)
}

async fn set_mailbox(call: &Call<'_>) -> Result<Output, CommandError> {
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let mut tx = call.ctx.store.write().await?;
    let mut mailbox = recipient(call, &mut tx, identity, Wanted::Mailbox).await?;
    check_not_in_cutover(call, &mut tx, &mailbox).await?;
    let warnings = apply_common(call, &mut mailbox)?;
    if let (RecipientKind::Mailbox(m), Some(hold)) = (&mut mailbox.kind, call.parameters.bool("LitigationHoldEnabled"))
    {
        m.litigation_hold = hold;
    }
    let domains = accepted_domains(call, &mut tx).await?;
    check_accepted(&domains, mailbox.smtp_addresses())?;
    check_addresses_free(call, &mut tx, &mailbox).await?;
    tx.recipient_update(call.tenant(), &mailbox).await?;
    call.save(tx, &mailbox.name).await?;
    Ok(Output::none().warning(warnings))
}
