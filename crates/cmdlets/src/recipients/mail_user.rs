//! Get-, New-, Set- and Remove-MailUser.

use super::{
    attributes::{Names, apply_common, identity, new_names, optional_identity, result_size, set_common},
    mailbox::list,
    object,
};
use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    lookup::{
        Wanted, accepted_domains, check_accepted, check_addresses_free, check_not_in_cutover, parse_smtp, recipient,
        smtp_address,
    },
    roles::{MAIL_RECIPIENT_CREATION, MAIL_RECIPIENTS, VIEW_ONLY_RECIPIENTS},
};
use rehome_command::{Declaration, Effect, Parameter, ParameterType as T, Value};
use rehome_domain::{
    error_id::ErrorId,
    id::ExchangeGuid,
    moves::UserStatus,
    recipient::{MailUser, Recipient, RecipientKind},
};
use rehome_store::{RecipientFilter, Tx};

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![
        Cmdlet::new(
            Declaration::new("Get", "MailUser", Effect::Read, &[MAIL_RECIPIENTS, VIEW_ONLY_RECIPIENTS], "Shows mail users.")
                .parameters([optional_identity("mail user"), result_size()])
                .output(object::mail_user_properties())
                .example("Get-MailUser reception --json", "Prints everything about one mail user."),
            handler!(get_mail_user),
        ),
        Cmdlet::new(
            Declaration::new("New", "MailUser", Effect::Change, &[MAIL_RECIPIENT_CREATION], "Makes a mail user: a recipient whose mail goes to an outside address.")
                .description(
                    "To receive a mailbox from another organisation a mail user needs, beside this: the mailbox's ExchangeGuid, its LegacyExchangeDN as x500 address (Set-MailUser), only addresses in accepted domains, and one in the batch's TargetDeliveryDomain.\nPasswords are set on the platform or in its directory, not here.",
                )
                .parameters(new_names())
                .parameters([
                    Parameter::new(
                        "ExternalEmailAddress",
                        T::Text,
                        "Where its mail goes: an address of the mailbox in the source. Also the primary address unless -PrimarySmtpAddress is given.",
                    )
                    .mandatory(),
                    Parameter::new("MicrosoftOnlineServicesID", T::Text, "Sign-in name, in an accepted domain.").alias("UserPrincipalName"),
                    Parameter::new("PrimarySmtpAddress", T::Text, "The primary address."),
                ])
                .output(object::mail_user_properties())
                .example(
                    "New-MailUser -Name 'Reception' -MicrosoftOnlineServicesID reception@fabrikam.example -PrimarySmtpAddress reception@fabrikam.example -ExternalEmailAddress reception@contoso.example",
                    "Makes the mail user that is to receive the reception's mailbox.",
                ),
            handler!(new_mail_user),
        ),
        Cmdlet::new(
            Declaration::new("Set", "MailUser", Effect::Change, &[MAIL_RECIPIENTS], "Changes a mail user's properties.")
                .description("Refused while a move to the mail user is being completed.")
                .parameters([identity("mail user")])
                .parameters(set_common())
                .parameters([
                    Parameter::new("PrimarySmtpAddress", T::Text, "As -WindowsEmailAddress."),
                    Parameter::new("ExternalEmailAddress", T::Text, "Where its mail goes; the one before is not kept."),
                    Parameter::new(
                        "ExchangeGuid",
                        T::Guid,
                        "The ExchangeGuid of the mailbox in the source that is to move here; zero for none.",
                    )
                    .nullable(),
                ])
                .example(
                    "Set-MailUser reception -ExchangeGuid 0f8f1b3e-8a51-4f7a-9d0c-1d2f3a4b5c6d -EmailAddresses '@{Add=\"x500:/o=contoso.example/ou=Exchange Administrative Group (FYDIBOHF23SPDLT)/cn=Recipients/cn=0f8f-reception\"}'",
                    "Prepares a mail user for a move.",
                ),
            handler!(set_mail_user),
        ),
        Cmdlet::new(
            Declaration::new("Remove", "MailUser", Effect::Destroy, &[MAIL_RECIPIENT_CREATION], "Removes a mail user.")
                .description("Refused while a migration user of an unfinished batch refers to it. Mail to its addresses bounces afterwards.")
                .parameters([identity("mail user")])
                .example("Remove-MailUser reception", "Removes one mail user."),
            handler!(remove_mail_user),
        ),
    ]
}

async fn get_mail_user(call: &Call<'_>) -> Result<Output, CommandError> {
    list(call, Wanted::MailUser, RecipientFilter::MailUsers, object::mail_user).await
}

async fn new_mail_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let names = Names::of(call.parameters)?;
    let external = parse_smtp(
        "ExternalEmailAddress",
        call.parameters.text("ExternalEmailAddress").unwrap_or_default(),
    )?;
    let primary = smtp_address(call.parameters, "PrimarySmtpAddress")?.unwrap_or_else(|| external.clone());
    let mut tx = call.ctx.store.write().await?;
    let domains = accepted_domains(call, &mut tx).await?;
    check_accepted(&domains, &names.sign_in_name)?;
    let kind = RecipientKind::MailUser(MailUser {
        external_email_address: Some(external),
        exchange_guid: None,
        archive_guid: None,
    });
    let made = names.recipient(call, &mut tx, &primary, kind).await?;
    check_addresses_free(call, &mut tx, &made).await?;
    tx.recipient_insert(call.tenant(), &made).await?;
    call.save(tx, &made.name).await?;
    Ok(Output::one(object::mail_user(&made)))
}

async fn set_mail_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let p = call.parameters;
    let mut tx = call.ctx.store.write().await?;
    let mut user = recipient(call, &mut tx, p.text("Identity").unwrap_or_default(), Wanted::MailUser).await?;
    check_not_in_cutover(call, &mut tx, &user).await?;
    let warnings = apply_common(call, &mut user)?;
    let guid = match p.get("ExchangeGuid") {
        Some(Value::Guid(guid)) if guid.is_nil() => Some(None),
        Some(Value::Guid(guid)) => Some(Some(ExchangeGuid(*guid))),
        Some(Value::Null) => Some(None),
        _ => None,
    };
    if let Some(Some(guid)) = guid {
        check_guid_free(call, &mut tx, &user, guid).await?;
    }
    if let RecipientKind::MailUser(m) = &mut user.kind {
        if let Some(external) = smtp_address(p, "ExternalEmailAddress")? {
            m.external_email_address = Some(external);
        }
        if let Some(guid) = guid {
            m.exchange_guid = guid;
        }
    }
    check_addresses_free(call, &mut tx, &user).await?;
    tx.recipient_update(call.tenant(), &user).await?;
    call.save(tx, &user.name).await?;
    Ok(Output::none().warning(warnings))
}

async fn check_guid_free(
    call: &Call<'_>,
    tx: &mut Tx,
    user: &Recipient,
    guid: ExchangeGuid,
) -> Result<(), CommandError> {
    match tx.recipient_by_exchange_guid(call.tenant(), guid).await? {
        Some(holder) if holder.id != user.id => Err(CommandError::new(
            ErrorId::ObjectAlreadyExists,
            guid.to_string(),
            format!(
                "The ExchangeGuid {guid} is already used by '{}' ({}).",
                holder.name,
                holder.recipient_type()
            ),
            "One mailbox is one recipient's: copy the value that Get-Mailbox prints in the source.",
        )),
        Some(_) | None => Ok(()),
    }
}

async fn remove_mail_user(call: &Call<'_>) -> Result<Output, CommandError> {
    let mut tx = call.ctx.store.write().await?;
    let user = recipient(
        call,
        &mut tx,
        call.parameters.text("Identity").unwrap_or_default(),
        Wanted::MailUser,
    )
    .await?;
    let moves = tx.move_list(call.tenant(), None).await?;
    let open = moves.iter().find(|m| {
        m.recipient == Some(user.id) && !matches!(m.status, UserStatus::Completed | UserStatus::CompletedWithWarnings)
    });
    if let Some(open) = open {
        return Err(CommandError::invalid_operation(
            &user.name,
            format!(
                "'{}' is the recipient of the migration user {} ({}).",
                user.name, open.email_address, open.status
            ),
            format!("Remove-MigrationUser {} first.", open.email_address),
        ));
    }
    tx.recipient_delete(call.tenant(), user.id).await?;
    call.save(tx, &user.name).await?;
    Ok(Output::none())
}
