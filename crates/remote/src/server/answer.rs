//! Errors as answers: one JSON form for partners, one for administrators, and the status for each id.

use super::request::{BodyRefusal, json};
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use rehome_domain::error_id::{ErrorId, Problem};
use rehome_domain::id::CorrelationId;
use rehome_migrate::protocol::{ErrorAnswer, ErrorBody};
use rehome_migrate::source::ProxyError;
use serde_json::json;

/// The status that goes with an error id.
pub(crate) fn status_of(id: ErrorId) -> StatusCode {
    match id {
        ErrorId::InvalidAccessToken => StatusCode::UNAUTHORIZED,
        ErrorId::ManagementObjectNotFound
        | ErrorId::MigrationRecipientNotFound
        | ErrorId::CommandNotFound
        | ErrorId::MemberNotFound => StatusCode::NOT_FOUND,
        ErrorId::ObjectAlreadyExists
        | ErrorId::MemberAlreadyExists
        | ErrorId::StaleAttempt
        | ErrorId::MailboxReopened
        | ErrorId::LeaseLapsed
        | ErrorId::RootMismatch
        | ErrorId::InvalidOperation
        | ErrorId::OldContentGone
        | ErrorId::SourceMailboxAlreadyBeingMovedPermanent
        | ErrorId::UserDuplicateInOtherBatch => StatusCode::CONFLICT,
        ErrorId::ManagementObjectAmbiguous
        | ErrorId::ParameterBinding
        | ErrorId::MigrationCsvInvalid
        | ErrorId::OutcomeStatementInvalid
        | ErrorId::SameTenant
        | ErrorId::InvalidTenant
        | ErrorId::ReadBackRequired
        | ErrorId::RoutingAddressNotAccepted
        | ErrorId::LegacyExchangeDnNotAccepted
        | ErrorId::MissingExchangeGuid
        | ErrorId::MissingX500Proxy
        | ErrorId::NotAcceptedDomain
        | ErrorId::TargetDeliveryDomainMismatchPermanent
        | ErrorId::MigrationPermanent
        | ErrorId::ExternalEmailAddressInvalid
        | ErrorId::MailboxNotLocked
        | ErrorId::SkippedItemsNotApproved => StatusCode::BAD_REQUEST,
        ErrorId::AccessDenied
        | ErrorId::ReturnNotApproved
        | ErrorId::ReturnPeriodEnded
        | ErrorId::ReturnRightMissing
        | ErrorId::ApplicationNotConsented
        | ErrorId::InvalidClientSecret
        | ErrorId::ExpiredClientSecret
        | ErrorId::ImapAuthentication
        | ErrorId::HomeConsentMissing
        | ErrorId::SourceTenantNotAuthorized
        | ErrorId::OrganizationRelationshipDisabled
        | ErrorId::MailboxMoveCapability
        | ErrorId::MailboxMovePublishedScopesMissing
        | ErrorId::MailboxNotInCrossTenantMigrationScope
        | ErrorId::MailboxOnHold
        | ErrorId::KeyNotPinned
        | ErrorId::PartnerIdentityChanged => StatusCode::FORBIDDEN,
        ErrorId::CutoverNotNow => StatusCode::TOO_MANY_REQUESTS,
        ErrorId::CommunicationErrorTransient | ErrorId::MailboxPlatform => StatusCode::SERVICE_UNAVAILABLE,
        ErrorId::MigrationServerConnectionFailed
        | ErrorId::ProtocolVersion
        | ErrorId::ItemDigestMismatch
        | ErrorId::SourceContentsShrank => StatusCode::BAD_GATEWAY,
        ErrorId::Unexpected => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// PowerShell's category for an error id.
pub(crate) fn category_of(id: ErrorId) -> &'static str {
    match status_of(id) {
        StatusCode::NOT_FOUND => "ObjectNotFound",
        StatusCode::CONFLICT => "InvalidOperation",
        StatusCode::BAD_REQUEST => "InvalidArgument",
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "PermissionDenied",
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "ResourceUnavailable",
        StatusCode::BAD_GATEWAY => "ConnectionError",
        _ => "NotSpecified",
    }
}

/// A refusal of the MRS proxy, with Retry-After where trying again makes sense.
pub(crate) fn proxy_error(error: &ProxyError, correlation: CorrelationId) -> Response {
    let body = ErrorAnswer {
        error: ErrorBody {
            id: error.id.as_str().to_owned(),
            message: error.message.clone(),
            retry_after: error.retry_after,
            correlation_id: correlation.to_string(),
        },
    };
    let mut response = json(status_of(error.id), &body);
    if let Some(seconds) = error.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.id == ErrorId::InvalidAccessToken {
        // RFC 9449 §7.1.
        let challenge = HeaderValue::from_static("DPoP error=\"invalid_token\", algs=\"ES256\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// An error of the administrators' interface.
pub(crate) fn admin_error(
    status: StatusCode,
    problem: &Problem,
    target: Option<&str>,
    correlation: CorrelationId,
) -> Response {
    let body = json!({ "error": {
        "id": problem.id.as_str(),
        "category": category_of(problem.id),
        "target": target,
        "message": problem.message,
        "advice": problem.advice,
        "correlation_id": correlation.to_string(),
    }});
    let mut response = json(status, &body);
    if status == StatusCode::UNAUTHORIZED {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A body that was not taken, for administrators.
pub(crate) fn admin_body_error(refusal: BodyRefusal, correlation: CorrelationId) -> Response {
    let problem = Problem::new(ErrorId::ParameterBinding, refusal.to_string(), "");
    admin_error(refusal.status(), &problem, None, correlation)
}

/// What a tenant that is not known here gets, and a token that is another tenant's.
pub(crate) fn unknown_tenant(text: &str) -> Problem {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
    Problem::new(
        ErrorId::InvalidTenant,
        format!("AADSTS90002: Tenant '{shown}' not found."),
        "Use the tenant's GUID or one of its accepted domains, and a session of that tenant.",
    )
}
