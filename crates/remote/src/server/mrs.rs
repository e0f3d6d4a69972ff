//! The MRS proxy's door: token and proof to a caller, then the verb.

use super::answer::proxy_error;
use super::request::{BodyRefusal, Correlation, JSON_LIMIT, PREPARE_LIMIT, Peer, Way, json, read_body};
use super::{Services, stream, tenant_in_token};
use crate::compression::{self, Compressed, ZSTD};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rehome_domain::error_id::ErrorId;
use rehome_domain::gate::Caller;
use rehome_domain::id::{AttemptId, ExchangeGuid, MoveId, TenantId};
use rehome_identity::access::Presented;
use rehome_identity::error::AccessError;
use rehome_migrate::protocol::{
    AttemptRequest, FoldersRequest, ItemsRequest, ListingRequest, PairsRequest, PrepareRequest, ReceiptRequest,
};
use rehome_migrate::source::{ProxyError, Source, VerbContext};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Every verb of the proxy, by the last part of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Open,
    Folders,
    Listing,
    Items,
    Lock,
    Renew,
    Prepare,
    Commit,
    Abort,
    Status,
    Sweep,
    Receipt,
    Pairs,
    TakeBack,
}

impl Operation {
    const NAMES: [(&'static str, Self); 14] = [
        ("open", Self::Open),
        ("folders", Self::Folders),
        ("listing", Self::Listing),
        ("items", Self::Items),
        ("lock", Self::Lock),
        ("renew", Self::Renew),
        ("prepare", Self::Prepare),
        ("commit", Self::Commit),
        ("abort", Self::Abort),
        ("status", Self::Status),
        ("sweep", Self::Sweep),
        ("receipt", Self::Receipt),
        ("pairs", Self::Pairs),
        ("takeback", Self::TakeBack),
    ];

    fn named(text: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, operation)| *operation)
    }

    /// The step of a cutover that has been made when the answer is about to be sent.
    fn step(self) -> Option<&'static str> {
        match self {
            Self::Lock => Some("remote.lock_done"),
            Self::Prepare => Some("remote.prepare_done"),
            Self::Commit => Some("remote.commit_done"),
            Self::Abort => Some("remote.abort_done"),
            Self::Sweep => Some("remote.sweep_done"),
            Self::Receipt => Some("remote.receipt_done"),
            Self::Open
            | Self::Folders
            | Self::Listing
            | Self::Items
            | Self::Renew
            | Self::Status
            | Self::Pairs
            | Self::TakeBack => None,
        }
    }

    /// Largest request, octets.
    fn limit(self) -> usize {
        match self {
            Self::Prepare => PREPARE_LIMIT,
            Self::Open
            | Self::Folders
            | Self::Listing
            | Self::Items
            | Self::Lock
            | Self::Renew
            | Self::Commit
            | Self::Abort
            | Self::Status
            | Self::Sweep
            | Self::Receipt
            | Self::Pairs
            | Self::TakeBack => JSON_LIMIT,
        }
    }
}

/// A body that was not taken. One that did not arrive whole may be sent again.
fn body_refused(refusal: BodyRefusal) -> ProxyError {
    match refusal {
        BodyRefusal::TooLong(_) | BodyRefusal::MediaType(_) => refused(ErrorId::ParameterBinding, refusal.to_string()),
        BodyRefusal::Broken => ProxyError {
            id: ErrorId::CommunicationErrorTransient,
            message: refusal.to_string(),
            retry_after: Some(5),
        },
    }
}

/// A refusal made here, before the gate.
fn refused(id: ErrorId, message: impl Into<String>) -> ProxyError {
    ProxyError {
        id,
        message: message.into(),
        retry_after: None,
    }
}

/// Why a token or proof is not taken, as the caller learns it. What belongs to another tenant gets the answer of an
/// unknown tenant.
fn access_refused(error: &AccessError, token: &str, tenant: TenantId) -> ProxyError {
    if tenant_in_token(token).is_some_and(|other| other != tenant) {
        return unknown_tenant();
    }
    match error.error_id() {
        ErrorId::Unexpected => {
            tracing::error!(error = crate::client::chain(error), "an access token cannot be checked");
            ProxyError {
                id: ErrorId::CommunicationErrorTransient,
                message: "The source cannot check tokens for the moment.".into(),
                retry_after: Some(5),
            }
        }
        id => refused(id, format!("{error}.")),
    }
}

fn unknown_tenant() -> ProxyError {
    refused(ErrorId::InvalidTenant, "AADSTS90002: There is no such tenant here.")
}

/// `POST /mrs/{tenant}/mailboxes/{guid}/{verb}`
#[allow(clippy::too_many_arguments, reason = "each is one extractor")]
pub(crate) async fn verb(
    State(services): State<Services>,
    Path((tenant, mailbox, operation)): Path<(String, String, String)>,
    Correlation(correlation): Correlation,
    Peer(peer): Peer,
    way: Way,
    uri: Uri,
    method: Method,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let asked = async {
        let tenant = known_tenant(&services, &tenant).await?;
        let caller = check_token(&services, tenant, uri.path(), &method, &headers).await?;
        let operation = Operation::named(&operation)
            .ok_or_else(|| refused(ErrorId::InvalidOperation, "The MRS proxy has no such verb."))?;
        let context = VerbContext {
            tenant,
            caller,
            mailbox: parse::<ExchangeGuid>(&mailbox, "the mailbox in the path is not a GUID")?,
            move_id: move_id(&headers)?,
            attempt: None,
            correlation,
            origin: peer.to_string(),
        };
        let body = read_body(&headers, body, "application/json", operation.limit())
            .await
            .map_err(body_refused)?;
        // A step of a cutover that has begun is finished even if the caller hangs up in the middle.
        let source = services.source.clone();
        let task = async move {
            let answered = answer(&source, operation, context, &body, &way).await;
            if let (Ok(_), Some(step)) = (&answered, operation.step()) {
                rehome_fault::step(step);
            }
            answered
        };
        tokio::spawn(tracing::Instrument::in_current_span(task))
            .await
            .unwrap_or_else(|error| {
                tracing::error!(%error, "a verb failed");
                Err(ProxyError {
                    id: ErrorId::Unexpected,
                    message: "The source failed; its log has the cause.".into(),
                    retry_after: Some(60),
                })
            })
    };
    asked
        .await
        .unwrap_or_else(|error: ProxyError| proxy_error(&error, correlation))
}

async fn known_tenant(services: &Services, text: &str) -> Result<TenantId, ProxyError> {
    // The proxy's address names the GUID, never a domain.
    let Ok(id) = text.parse::<TenantId>() else {
        return Err(unknown_tenant());
    };
    match services.identity.tenant_resolve(&id.to_string()).await {
        Ok(Some(tenant)) => Ok(tenant.id),
        Ok(None) => Err(unknown_tenant()),
        Err(error) => {
            tracing::error!(error = crate::client::chain(&error), "a tenant cannot be looked up");
            Err(ProxyError {
                id: ErrorId::CommunicationErrorTransient,
                message: "The source cannot serve the request for the moment.".into(),
                retry_after: Some(5),
            })
        }
    }
}

async fn check_token(
    services: &Services,
    tenant: TenantId,
    path: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Caller, ProxyError> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    };
    let missing = || {
        refused(
            ErrorId::InvalidAccessToken,
            "The request needs one Authorization header of scheme DPoP and one DPoP header.",
        )
    };
    let token = one("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("DPoP"))
        .map(|(_, token)| token.trim())
        .ok_or_else(missing)?;
    let proof = one("dpop").ok_or_else(missing)?;
    // The public name, not the Host header: the proof is for the address that the discovery document gives out.
    let url = format!("{}{path}", services.identity.public_name());
    let presented = Presented {
        token,
        proof,
        method: method.as_str(),
        url: &url,
    };
    let caller = services
        .identity
        .check_access(&presented, tenant, services.clock.now())
        .await
        .map_err(|error| access_refused(&error, token, tenant))?;
    Ok(Caller {
        service_principal: caller.service_principal,
        app_id: caller.app_id,
        home_issuer: caller.home_issuer,
        home_tenant: caller.home_tenant,
        roles: caller.roles,
    })
}

fn parse<T: std::str::FromStr>(text: &str, why: &str) -> Result<T, ProxyError> {
    text.parse()
        .map_err(|_| refused(ErrorId::ParameterBinding, format!("The request is malformed: {why}.")))
}

fn move_id(headers: &HeaderMap) -> Result<MoveId, ProxyError> {
    let text = headers
        .get("rehome-move-id")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    parse(text, "the header rehome-move-id is missing or not a GUID")
}

fn body_of<T: DeserializeOwned>(body: &[u8]) -> Result<T, ProxyError> {
    serde_json::from_slice(body).map_err(|error| {
        refused(
            ErrorId::ParameterBinding,
            format!("The request's body is malformed: {error}."),
        )
    })
}

/// Shorter answers are not worth compressing.
const WORTH_COMPRESSING: usize = 4 * 1024;

fn whole<T: Serialize>(answer: &T) -> Response {
    json(StatusCode::OK, answer)
}

/// An answer that may be long, compressed for callers that take it.
fn long<T: Serialize>(answer: &T, way: &Way) -> Response {
    let octets = serde_json::to_vec(answer).unwrap_or_default();
    if !way.zstd || octets.len() < WORTH_COMPRESSING {
        return whole(answer);
    }
    match compression::whole(&octets) {
        Ok(octets) => {
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
                (header::CONTENT_ENCODING, HeaderValue::from_static(ZSTD)),
            ];
            (StatusCode::OK, headers, octets).into_response()
        }
        Err(_) => whole(answer),
    }
}

/// A stream of frames. Listings shrink to an eighth and are compressed for every caller that takes it; contents shrink
/// less, and only where the link is what they wait for.
fn frames(
    octets: impl Stream<Item = Result<Bytes, ProxyError>> + Send + Unpin + 'static,
    way: &Way,
    contents: bool,
) -> Response {
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static(rehome_wire::frames::MEDIA_TYPE),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let mut on_link = way.link.begin();
    let wanted = way.zstd && (!contents || way.link.is_narrow());
    if wanted && let Ok(compressed) = Compressed::new(()) {
        on_link.compressed = true;
        let octets = compressed.of(octets.map(|piece| piece.map_err(std::io::Error::other)));
        let coding = [(header::CONTENT_ENCODING, HeaderValue::from_static(ZSTD))];
        return (
            StatusCode::OK,
            headers,
            coding,
            stream::body(octets, stream::STALL, on_link),
        )
            .into_response();
    }
    (StatusCode::OK, headers, stream::body(octets, stream::STALL, on_link)).into_response()
}

async fn answer(
    source: &Source,
    operation: Operation,
    mut context: VerbContext,
    body: &[u8],
    way: &Way,
) -> Result<Response, ProxyError> {
    let mut attempt = |text: &str| -> Result<(), ProxyError> {
        context.attempt = Some(parse::<AttemptId>(text, "the attempt is not a GUID")?);
        Ok(())
    };
    let attempt_alone = |body: &[u8]| body_of::<AttemptRequest>(body).map(|request| request.attempt);
    match operation {
        Operation::Open => Ok(whole(&source.open(&context).await?)),
        Operation::Folders => {
            let request: FoldersRequest = body_of(body)?;
            Ok(long(&source.folders(&context, &request).await?, way))
        }
        Operation::Listing => {
            let request: ListingRequest = body_of(body)?;
            Ok(frames(source.listing(&context, request).await?, way, false))
        }
        Operation::Items => {
            let request: ItemsRequest = body_of(body)?;
            request.attempt.as_deref().map(&mut attempt).transpose()?;
            Ok(frames(source.items(&context, request).await?, way, true))
        }
        Operation::Prepare => {
            let request: PrepareRequest = body_of(body)?;
            attempt(&request.attempt)?;
            Ok(whole(&source.prepare(&context, &request).await?))
        }
        Operation::Lock => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.lock(&context).await?))
        }
        Operation::Renew => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.renew(&context).await?))
        }
        Operation::Commit => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.commit(&context).await?))
        }
        Operation::Abort => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.abort(&context).await?))
        }
        Operation::Status => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.status(&context).await?))
        }
        Operation::Sweep => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.sweep(&context).await?))
        }
        Operation::Receipt => {
            let request: ReceiptRequest = body_of(body)?;
            attempt(&request.attempt)?;
            Ok(whole(&source.receipt(&context, &request).await?))
        }
        Operation::TakeBack => {
            attempt(&attempt_alone(body)?)?;
            Ok(whole(&source.take_back(&context).await?))
        }
        Operation::Pairs => Ok(long(
            &source.pairs(&context, body_of::<PairsRequest>(body)?).await?,
            way,
        )),
    }
}
