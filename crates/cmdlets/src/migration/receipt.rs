//! Receipts of finished moves, on both sides.

use crate::{
    Cmdlet,
    context::{Call, Output},
    error::CommandError,
    handler,
    roles::{MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION},
};
use jiff::Timestamp;
use rehome_command::{Declaration, Effect, Object, Parameter, ParameterType as T, Property, Value};
use rehome_domain::{error_id::Problem, id::AttemptId};
use rehome_migrate::{
    Clock,
    receipt::{Digest, FoundMessage, ReceiptFailure, Receipts, SingleEntry, Summary, digest_of_message},
};
use rehome_store::ReceiptSide;

const READERS: &[&str] = &[MIGRATION, MOVE_MAILBOXES, VIEW_ONLY_CONFIGURATION];
/// Octets of a receipt in one answer.
const CHUNK: usize = 8 * 1024 * 1024;

pub(super) fn cmdlets() -> Vec<Cmdlet> {
    vec![get(), export(), test()]
}

fn identity() -> Parameter {
    Parameter::new(
        "Identity",
        T::Identity,
        "The mailbox: the address that it moved with, any identity of the recipient, or the Guid of user, attempt or mailbox. It need not exist any more.",
    )
    .position(1)
    .pipeline()
}

fn message() -> [Parameter; 2] {
    [
        Parameter::new(
            "MessageFile",
            T::Octets,
            "The file with the message. How its lines end does not matter; everything else does.",
        )
        .sets(&["Message"]),
        Parameter::new(
            "MessageDigest",
            T::Text,
            "In place of a file, what rehome receipt digest prints of it: for messages that are too large to be sent.",
        )
        .sets(&["Digest"]),
    ]
}

fn get() -> Cmdlet {
    Cmdlet::new(
        Declaration::new("Get", "MigrationReceipt", Effect::Read, READERS, "Shows the receipts of finished moves: what was moved, proven by which root, signed by whom.")
            .description("A receipt is made when a move is completed, by both organisations. It stays when the user, his batch and the mailbox are removed. A Number above 0 is what a later sweep brought; this organisation alone has signed that.")
            .parameters([identity()])
            .output(properties())
            .example("Get-MigrationReceipt reception@fabrikam.example", "Shows one mailbox's receipt."),
        handler!(get_receipt),
    )
}

fn export() -> Cmdlet {
    Cmdlet::new(
        Declaration::new("Export", "MigrationReceipt", Effect::Read, READERS, "Gives a receipt as a file that anyone can verify, or the proof of a single message.")
            .description("The file holds digest, length, flags and received time of every item, and no content. rehome receipt verify checks it anywhere, with the file and both organisations' published keys. --out FILE writes it; without it the octets are in FileData (base64 in JSON), at most 8 MiB at a time: NextPart is the Part of the next call.")
            .parameters([identity().mandatory().sets(&["Whole", "Message", "Digest"])])
            .parameters([Parameter::new("Part", T::Integer, "Which part of the file to give; 0 unless given.").sets(&["Whole"])])
            .parameters(message().map(Parameter::mandatory))
            .default_set("Whole")
            .output([
                Property::column("Identity", "The mailbox."),
                Property::new("AttemptId", "The attempt that was completed."),
                Property::column("FileName", "A name for the file."),
                Property::column("Length", "Octets of the whole file."),
                Property::new("FileData", "The octets."),
                Property::new("NextPart", "Which part comes next; nothing when this was the last."),
            ])
            .example("Export-MigrationReceipt reception@fabrikam.example --out reception.receipt", "Writes the receipt into a file.")
            .example("Export-MigrationReceipt reception@fabrikam.example -MessageFile contract.eml --out contract.proof", "Writes a small file that proves one message."),
        handler!(export_receipt),
    )
}

fn test() -> Cmdlet {
    Cmdlet::new(
        Declaration::new("Test", "MigrationReceipt", Effect::Read, READERS, "Says whether exactly this message was moved, when, and into which folder.")
            .description("The message is looked for by the digest of its content, so that a single altered letter makes it another one. The whole receipt is checked against its signed root on the way.")
            .parameters([identity().mandatory().sets(&["Message", "Digest"])])
            .parameters(message().map(Parameter::mandatory))
            .default_set("Message")
            .output([
                Property::column("Identity", "The mailbox."),
                Property::column("Result", "Moved, MovedWithException, or NotFound."),
                Property::column("Folder", "The folder that the message was in."),
                Property::column("MovedAt", "When the move was completed, or the sweep that brought it."),
                Property::column("Received", "The message's received time."),
                Property::new("Flags", "Its flags when it was moved."),
                Property::new("Uid", "Its uid at the source."),
                Property::new("Exception", "In what the target did not hold it as the source did, and why."),
                Property::new("Digest", "The digest of its canonical form."),
                Property::new("Root", "The signed root that it is proven by."),
                Property::new("Number", "0 for the receipt itself, 1 and above for what a later sweep brought."),
            ])
            .example("Test-MigrationReceipt reception@fabrikam.example -MessageFile contract.eml", "Answers for one message."),
        handler!(test_receipt),
    )
}

fn properties() -> Vec<Property> {
    let columns = [
        "Identity",
        "Side",
        "Made",
        "Items",
        "Exceptions",
        "SignedBySource",
        "SignedByTarget",
    ];
    [
        ("Identity", "How the mailbox was called here when it moved."),
        ("Side", "source: it left this organisation. target: it came here."),
        (
            "Number",
            "0 for the receipt, 1 and above for what later sweeps brought.",
        ),
        ("Made", "When the move was completed here, or the sweep."),
        ("UserGuid", "The move."),
        ("AttemptId", "The attempt that was completed."),
        ("ExchangeGuid", "The mailbox."),
        ("PartnerTenantId", "The other organisation."),
        (
            "Root",
            "The root over all folders, which both sides found on their own.",
        ),
        ("Folders", "Folders."),
        ("Items", "Items."),
        ("Bytes", "Octets of the items in canonical form."),
        (
            "Exceptions",
            "Items that were not in the target as they were in the source.",
        ),
        ("Skipped", "Of those, left behind."),
        ("Altered", "Of those, with other octets."),
        ("Flags", "Of those, with other flags."),
        ("Dates", "Of those, with another received time."),
        (
            "LockMilliseconds",
            "How long the mailbox was locked, on the source's clock.",
        ),
        ("Locked", "When the source locked the mailbox."),
        ("Prepared", "When the source promised."),
        ("Decided", "When the target decided."),
        ("Committed", "When the source committed."),
        ("SourcePlatform", "locked or not locked, as the source states it."),
        ("TargetPlatform", "locked or not locked, as the target states it."),
        ("SignedBySource", "Whether the source's statement is here."),
        ("SignedByTarget", "Whether the target's statement is here."),
        ("SourceKeyId", "The fingerprint of the source's key."),
        ("TargetKeyId", "The fingerprint of the target's key."),
        ("SourceKeysAt", "Where the source publishes its keys."),
        ("TargetKeysAt", "Where the target publishes its keys."),
        ("Tool", "The program that made it here."),
    ]
    .map(|(name, help)| Property::among(&columns, name, help))
    .into()
}

fn receipts(call: &Call<'_>) -> Receipts {
    let (ctx, now) = (call.ctx, call.ctx.now);
    Receipts::new(
        ctx.store.clone(),
        ctx.identity.clone(),
        ctx.platforms.clone(),
        Clock::from_fn(move || now),
    )
}

fn failed(failure: ReceiptFailure) -> CommandError {
    Problem::from(failure).into()
}

/// The receipts that the identity names, or all.
async fn found(call: &Call<'_>) -> Result<Vec<Summary>, CommandError> {
    let identity = call.parameters.text("Identity");
    let mut guid = None;
    if let Some(identity) = identity {
        let mut tx = call.ctx.store.read().await?;
        // A recipient of today, if there is one: its other names lead to the mailbox too.
        let named = tx.recipient_find(call.tenant(), identity).await?;
        if let [one] = named.as_slice() {
            guid = one.exchange_guid();
        }
    }
    receipts(call).list(call.tenant(), identity, guid).await.map_err(failed)
}

/// The newest receipt that the identity names.
async fn newest(call: &Call<'_>) -> Result<Summary, CommandError> {
    match found(call).await?.into_iter().next() {
        Some(summary) => Ok(summary),
        None => Err(nothing_found(call).await?),
    }
}

async fn nothing_found(call: &Call<'_>) -> Result<CommandError, CommandError> {
    let identity = call.parameters.text("Identity").unwrap_or_default();
    let mut tx = call.ctx.store.read().await?;
    let organisation = call.organisation(&mut tx).await?;
    let advice = "Get-MigrationReceipt lists the receipts; one is made when a move is completed.";
    Ok(CommandError::not_found(identity, &organisation, advice))
}

fn at(milliseconds: Option<i64>) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds?).ok()
}

fn shown(summary: &Summary) -> Object {
    let row = &summary.row;
    let (own, partner) = (summary.own.as_ref(), summary.partner.as_ref());
    let is_source = row.side == ReceiptSide::Source;
    let (source, target) = if is_source { (own, partner) } else { (partner, own) };
    let pair = |own: &Option<String>, partner: &Option<String>| {
        let (own, partner) = (own.clone(), partner.clone());
        if is_source { (own, partner) } else { (partner, own) }
    };
    let (source_key, target_key) = pair(&summary.own_key, &summary.partner_key);
    let (source_keys_at, target_keys_at) = pair(&summary.own_keys_at, &summary.partner_keys_at);
    let counts = own.map(|body| body.exceptions);
    let lock = source.or(target).and_then(|body| body.times.lock_milliseconds);
    Object::new()
        .with("Identity", row.address.as_str())
        .with("Side", row.side.as_str())
        .with("Number", u64::from(row.number))
        .with("Made", row.made)
        .with("UserGuid", row.move_id.0)
        .with("AttemptId", row.attempt.0)
        .with("ExchangeGuid", row.exchange_guid.0)
        .with("PartnerTenantId", row.partner_tenant.0)
        .with("Root", Digest(row.root).to_string())
        .with("Folders", row.folders)
        .with("Items", row.items)
        .with("Bytes", row.octets)
        .with("Exceptions", summary.exceptions)
        .with("Skipped", counts.map(|counts| counts.skipped))
        .with("Altered", counts.map(|counts| counts.altered))
        .with("Flags", counts.map(|counts| counts.flags))
        .with("Dates", counts.map(|counts| counts.date))
        .with("LockMilliseconds", lock)
        .with("Locked", source.and_then(|body| at(body.times.locked)))
        .with("Prepared", source.and_then(|body| at(body.times.prepared)))
        .with("Decided", target.and_then(|body| at(body.times.decided)))
        .with("Committed", source.and_then(|body| at(body.times.committed)))
        .with("SourcePlatform", source.map(|body| body.platform.clone()))
        .with("TargetPlatform", target.map(|body| body.platform.clone()))
        .with("SignedBySource", source.is_some())
        .with("SignedByTarget", target.is_some())
        .with("SourceKeyId", source_key)
        .with("TargetKeyId", target_key)
        .with("SourceKeysAt", source_keys_at)
        .with("TargetKeysAt", target_keys_at)
        .with("Tool", own.map(|body| body.tool.clone()))
}

async fn get_receipt(call: &Call<'_>) -> Result<Output, CommandError> {
    let found = found(call).await?;
    if found.is_empty() && call.parameters.given("Identity") {
        return Err(nothing_found(call).await?);
    }
    let alone = found
        .iter()
        .filter(|summary| summary.row.number == 0 && summary.partner.is_none());
    let alone: Vec<String> = alone.map(|summary| summary.row.address.clone()).collect();
    let warning = (!alone.is_empty()).then(|| {
        format!(
            "The other organisation's signature is not here for: {}. It comes with a later sweep, if that organisation can still be asked.",
            alone.join(", ")
        )
    });
    Ok(Output::many(found.iter().map(shown)).warning(warning))
}

/// The message that the parameters mean.
fn wanted(call: &Call<'_>) -> Result<Option<Digest>, CommandError> {
    if let Some(octets) = call.parameters.octets("MessageFile") {
        let digest = digest_of_message(&mut &*octets);
        return digest
            .map(Some)
            .map_err(|error| CommandError::unexpected("reading the message", &error));
    }
    let Some(text) = call.parameters.text("MessageDigest") else {
        return Ok(None);
    };
    let digest = text.parse().map_err(|_| {
        CommandError::parameter(
            "MessageDigest",
            format!("'{text}' is no digest: 64 hexadecimal digits are expected."),
            "rehome receipt digest FILE prints it.",
        )
    });
    digest.map(Some)
}

async fn matches(call: &Call<'_>, attempt: AttemptId, digest: Digest) -> Result<Vec<FoundMessage>, CommandError> {
    let found = receipts(call).find(call.tenant(), attempt, digest).await;
    found.map_err(failed)
}

async fn export_receipt(call: &Call<'_>) -> Result<Output, CommandError> {
    let summary = newest(call).await?;
    let (row, attempt) = (&summary.row, summary.row.attempt);
    let object = Object::new()
        .with("Identity", row.address.as_str())
        .with("AttemptId", attempt.0);
    let Some(digest) = wanted(call)? else {
        let part = u64::try_from(call.parameters.int("Part").unwrap_or(0))
            .map_err(|_| CommandError::parameter("Part", "Part is a part's number, 0 and above.", ""))?;
        let from = part * CHUNK as u64;
        let chunk = receipts(call)
            .chunk(call.tenant(), attempt, from, CHUNK)
            .await
            .map_err(failed)?;
        let next = from + chunk.octets.len() as u64;
        return Ok(Output::one(
            object
                .with("FileName", format!("{}.receipt", row.address))
                .with("Length", chunk.length)
                .with("FileData", Value::Octets(chunk.octets))
                .with("NextPart", (next < chunk.length).then_some(part + 1)),
        ));
    };
    let Some(found) = matches(call, attempt, digest).await?.into_iter().next() else {
        return Err(CommandError::invalid_operation(
            &row.address,
            format!(
                "The receipt of {} has no message with the digest {digest}.",
                row.address
            ),
            "A single altered octet makes it another message. Test-MigrationReceipt looks in the same way.",
        ));
    };
    let octets = found.proof.octets();
    Ok(Output::one(
        object
            .with(
                "FileName",
                format!("{}.{}.proof", row.address, &digest.to_string()[..16]),
            )
            .with("Length", octets.len() as u64)
            .with("FileData", Value::Octets(octets))
            .with("NextPart", Value::Null),
    ))
}

async fn test_receipt(call: &Call<'_>) -> Result<Output, CommandError> {
    let summary = newest(call).await?;
    let Some(digest) = wanted(call)? else {
        return Err(CommandError::parameter("MessageFile", "A message is needed.", ""));
    };
    let found = matches(call, summary.row.attempt, digest).await?;
    let address = summary.row.address.as_str();
    if found.is_empty() {
        let object = Object::new()
            .with("Identity", address)
            .with("Result", "NotFound")
            .with("Digest", digest.to_string());
        return Ok(Output::one(object));
    }
    let objects = found.iter().flat_map(|found| {
        let entries = found.proof.entries.iter();
        entries.map(move |entry| moved(address, found, entry))
    });
    Ok(Output::many(objects))
}

fn moved(address: &str, found: &FoundMessage, entry: &SingleEntry) -> Object {
    let exceptions = found.proof.exceptions.iter();
    let exceptions = exceptions.filter(|exception| exception.path == entry.path && exception.uid == entry.leaf.uid);
    let exceptions: Vec<String> = exceptions
        .map(|exception| match &exception.reason {
            Some(reason) => format!("{}: {reason}", exception.kind),
            None => exception.kind.clone(),
        })
        .collect();
    Object::new()
        .with("Identity", address)
        .with(
            "Result",
            if exceptions.is_empty() {
                "Moved"
            } else {
                "MovedWithException"
            },
        )
        .with("Folder", entry.path.join("/"))
        .with("MovedAt", found.made)
        .with("Received", Timestamp::from_second(entry.leaf.received).ok())
        .with("Flags", entry.leaf.flags.canonical_names())
        .with("Uid", u64::from(entry.leaf.uid))
        .with("Exception", exceptions)
        .with("Digest", entry.leaf.digest.to_string())
        .with("Root", entry.root().map(|root| root.to_string()))
        .with("Number", u64::from(found.proof.number))
}
