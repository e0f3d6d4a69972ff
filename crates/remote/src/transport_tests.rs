//! Both ends over real sockets on loopback: TLS, HTTP/2 streams, overrides, limits.

use crate::client::{Bounds, Call, Lane, StreamKind, Streamed, once, once_without_redirect};
use crate::client::{ConnectError, ConnectorSettings, HttpsConnector, Origin, TransportError};
use crate::compression::{self, Compressed};
use crate::server::{Limits, ListenError, Listener};
use crate::{server, tls};
use axum::Router;
use axum::response::Redirect;
use axum::routing::get;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

const NAME: &str = "source.contoso.example";
const BOUNDS: Bounds = Bounds {
    time: Duration::from_secs(30),
    octets: 64 * 1024,
};

/// A trial CA and a leaf for [`NAME`], as files.
pub(crate) struct Certificates {
    _folder: tempfile::TempDir,
    pub(crate) ca: PathBuf,
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn certificates(name: &str) -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&leaf_key, &issuer)
        .unwrap();
    let file = |file: &str, text: String| {
        let path = folder.path().join(file);
        std::fs::write(&path, text).unwrap();
        path
    };
    let ca = file("ca.pem", authority_certificate.pem());
    let chain = file("chain.pem", leaf.pem());
    let key = file("key.pem", leaf_key.serialize_pem());
    Certificates {
        _folder: folder,
        ca,
        chain,
        key,
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) async fn serve(router: Router, certificates: &Certificates) -> Running {
    let tls = tls::server_config(&certificates.chain, &certificates.key).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(tls), Limits::default())
        .await
        .unwrap();
    let (address, stop) = (listener.address(), CancellationToken::new());
    let task = tokio::spawn(listener.serve(router, stop.clone()));
    Running { address, stop, task }
}

pub(crate) fn connector(certificates: &Certificates, name: &str, address: SocketAddr) -> HttpsConnector {
    let mut settings = ConnectorSettings::new(tls::client_config(std::slice::from_ref(&certificates.ca)).unwrap());
    settings.overrides.insert(format!("{name}:443"), address);
    HttpsConnector::new(settings)
}

fn lane(connector: HttpsConnector) -> Lane {
    Lane::counted(connector, Origin::parse(NAME).unwrap(), Arc::default())
}

fn url(path: &str) -> Url {
    Url::parse(&format!("https://{NAME}{path}")).unwrap()
}

/// Octets that tell their place, counted as they are made.
fn octets(made: Arc<AtomicUsize>, pieces: usize) -> impl Stream<Item = Result<Bytes, io::Error>> {
    futures_util::stream::iter(0..pieces).map(move |number| {
        made.fetch_add(PIECE, Ordering::SeqCst);
        Ok(Bytes::from(vec![u8::try_from(number % 251).unwrap(); PIECE]))
    })
}

const PIECE: usize = 64 * 1024;
const PIECES: usize = 800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_stream_whole_with_bounded_read_ahead() {
    let certificates = certificates(NAME);
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let router = Router::new().route(
        "/stream",
        get(async move || server::stream_body(octets(counter, PIECES))),
    );
    let running = serve(router, &certificates).await;
    let lane = lane(connector(&certificates, NAME, running.address));

    let Streamed::Body { mut body, .. } = lane
        .stream(&Call::get(url("/stream")), StreamKind::Contents)
        .await
        .unwrap()
    else {
        panic!("the stream was refused")
    };
    let mut taken = 0;
    while let Some(piece) = body.next().await.unwrap() {
        for (offset, octet) in piece.iter().enumerate().step_by(4096) {
            assert_eq!(usize::from(*octet), ((taken + offset) / PIECE) % 251);
        }
        taken += piece.len();
        // One stream window, what the server buffers for sending, and a few pieces between.
        let ahead = made.load(Ordering::SeqCst).saturating_sub(taken);
        assert!(
            ahead <= 10 * 1024 * 1024,
            "{ahead} octets were read ahead of the network"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(taken, PIECE * PIECES);
}

#[tokio::test]
async fn a_dropped_stream_releases_its_source() {
    let certificates = certificates(NAME);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(Some(sender)));
    let router = Router::new().route(
        "/stream",
        get(async move || {
            let guard = held.lock().unwrap().take();
            server::stream_body(futures_util::stream::repeat_with(move || {
                let _held = &guard;
                Ok::<_, io::Error>(Bytes::from(vec![0; PIECE]))
            }))
        }),
    );
    let running = serve(router, &certificates).await;
    let lane = lane(connector(&certificates, NAME, running.address));
    let Streamed::Body { mut body, .. } = lane
        .stream(&Call::get(url("/stream")), StreamKind::Contents)
        .await
        .unwrap()
    else {
        panic!("the stream was refused")
    };
    body.next().await.unwrap();
    drop(body);
    // The other end of this channel lives in the source: it closes when the source is dropped.
    tokio::time::timeout(Duration::from_secs(30), receiver)
        .await
        .unwrap()
        .unwrap_err();
}

#[tokio::test]
async fn compressed_streams_come_back_and_only_where_they_were_asked_for() {
    let certificates = certificates(NAME);
    let compressed = async || {
        let octets = octets(Arc::default(), 20).boxed();
        let body = server::stream_body(Compressed::new(octets).unwrap());
        ([("content-encoding", "zstd")], body)
    };
    let whole = async || {
        let text = compression::whole(&[b'x'; 60_000]).unwrap();
        ([("content-encoding", "zstd")], text)
    };
    let broken = async || {
        let text = compression::whole(&[b'x'; 60_000]).unwrap();
        ([("content-encoding", "zstd")], text[..text.len() - 1].to_vec())
    };
    let router = Router::new()
        .route("/stream", get(compressed))
        .route("/whole", get(whole))
        .route("/broken", get(broken));
    let running = serve(router, &certificates).await;
    let lane = lane(connector(&certificates, NAME, running.address));
    let call = |path: &str, zstd: bool| {
        let mut call = Call::get(url(path));
        if zstd {
            call.take_zstd();
        }
        call
    };
    let kind = StreamKind::Listing;
    let Streamed::Body { mut body, .. } = lane.stream(&call("/stream", true), kind).await.unwrap() else {
        panic!("the stream was refused")
    };
    let mut taken = 0;
    while let Some(piece) = body.next().await.unwrap() {
        for (offset, octet) in piece.iter().enumerate() {
            assert_eq!(usize::from(*octet), (taken + offset) / PIECE);
        }
        taken += piece.len();
    }
    assert_eq!(taken, 20 * PIECE);
    let Streamed::Body { mut body, .. } = lane.stream(&call("/broken", true), kind).await.unwrap() else {
        panic!("the stream was refused")
    };
    let ended = loop {
        match body.next().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(matches!(ended, Err(TransportError::Unexpected { .. })), "{ended:?}");
    let answer = lane.whole(&call("/whole", true), BOUNDS).await.unwrap();
    assert_eq!(answer.body.len(), 60_000);
    let narrow = Bounds {
        octets: 59_999,
        ..BOUNDS
    };
    let error = lane.whole(&call("/whole", true), narrow).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLong { .. }), "{error}");
    let error = lane.whole(&call("/whole", false), BOUNDS).await.unwrap_err();
    assert!(matches!(error, TransportError::Unexpected { .. }), "{error}");
    assert!(lane.stream(&call("/stream", false), kind).await.is_err());
}

#[tokio::test]
async fn as_many_streams_are_open_as_the_source_works_on() {
    let certificates = certificates(NAME);
    let router = Router::new().route("/stream", get(async || server::stream_body(octets(Arc::default(), 1))));
    let running = serve(router, &certificates).await;
    let lane = lane(connector(&certificates, NAME, running.address));
    let call = Call::get(url("/stream"));
    let open = async |kind| lane.stream(&call, kind).await.unwrap();
    for allowed in [8, 2, 5, 1] {
        lane.allow_streams(allowed);
        let mut held = Vec::new();
        for _ in 0..allowed {
            held.push(open(StreamKind::Contents).await);
        }
        let one_more = open(StreamKind::Contents);
        let listing = open(StreamKind::Listing);
        tokio::select! {
            biased;
            _ = one_more => panic!("{allowed} streams are allowed"),
            _ = listing => {}
        }
        drop(held);
        open(StreamKind::Contents).await;
    }
}

#[tokio::test]
async fn a_connection_without_requests_is_closed() {
    let certificates = certificates(NAME);
    let tls = tls::server_config(&certificates.chain, &certificates.key).unwrap();
    let limits = Limits {
        idle: Duration::from_millis(1),
        ..Limits::default()
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(tls), limits)
        .await
        .unwrap();
    let connector = connector(&certificates, NAME, listener.address());
    tokio::spawn(listener.serve(Router::new().route("/", get(async || "here")), CancellationToken::new()));
    let origin = Origin::parse(NAME).unwrap();
    let mut sender = connector.connect_http2(&origin, &Arc::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while sender.ready().await.is_ok() && !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_override_moves_the_socket_but_not_the_name() {
    let certificates = certificates(NAME);
    let running = serve(Router::new().route("/", get(async || "here")), &certificates).await;

    let good = connector(&certificates, NAME, running.address);
    let answer = once(&good, &Call::get(url("/")), BOUNDS).await.unwrap();
    assert_eq!(answer.body, "here");
    assert_eq!(
        good.describe(&Origin::parse(NAME).unwrap()),
        format!("https://{NAME} (connection override: {})", running.address)
    );

    // Another name led to the same server gets the server's certificate, which is not for it.
    let other = connector(&certificates, "other.example", running.address);
    let error = once(
        &other,
        &Call::get(Url::parse("https://other.example/").unwrap()),
        BOUNDS,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(error, TransportError::Connect(ConnectError::Tls { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("connection override"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let (ours, theirs) = (certificates(NAME), certificates(NAME));
    let running = serve(Router::new(), &theirs).await;
    let error = once(&connector(&ours, NAME, running.address), &Call::get(url("/")), BOUNDS)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransportError::Connect(ConnectError::Tls { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn private_addresses_are_refused_unless_allowed_or_our_own() {
    let certificates = certificates("localhost");
    let running = serve(Router::new().route("/", get(async || "here")), &certificates).await;
    let port = running.address.port();
    let call = Call::get(Url::parse(&format!("https://localhost:{port}/")).unwrap());
    let settings = || ConnectorSettings::new(tls::client_config(std::slice::from_ref(&certificates.ca)).unwrap());

    let error = once(&HttpsConnector::new(settings()), &call, BOUNDS).await.unwrap_err();
    assert!(
        matches!(error, TransportError::Connect(ConnectError::PrivateAddress { .. })),
        "{error}"
    );

    let allowed = ConnectorSettings {
        allow_private_addresses: true,
        ..settings()
    };
    assert!(once(&HttpsConnector::new(allowed), &call, BOUNDS).await.is_ok());
    let own = ConnectorSettings {
        own_origins: vec![format!("localhost:{port}")],
        ..settings()
    };
    assert!(once(&HttpsConnector::new(own), &call, BOUNDS).await.is_ok());
}

#[tokio::test]
async fn redirects_and_long_answers_are_refused() {
    let certificates = certificates(NAME);
    let router = Router::new()
        .route("/away", get(async || Redirect::temporary("https://elsewhere.example/")))
        .route("/long", get(async || "x".repeat(70_000)));
    let running = serve(router, &certificates).await;
    let connector = connector(&certificates, NAME, running.address);
    let error = once_without_redirect(&connector, &Call::get(url("/away")), BOUNDS)
        .await
        .unwrap_err();
    assert!(matches!(error, TransportError::Redirect { .. }), "{error}");
    let error = once(&connector, &Call::get(url("/long")), BOUNDS).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLong { .. }), "{error}");
    let lane = lane(connector);
    assert!(matches!(
        lane.whole(&Call::get(url("/away")), BOUNDS).await,
        Err(TransportError::Redirect { .. })
    ));
}

#[tokio::test]
async fn http1_alone_serves_documents_but_no_lane() {
    let certificates = certificates(NAME);
    let mut tls = Arc::unwrap_or_clone(tls::server_config(&certificates.chain, &certificates.key).unwrap());
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), Some(Arc::new(tls)), Limits::default())
        .await
        .unwrap();
    let connector = connector(&certificates, NAME, listener.address());
    tokio::spawn(listener.serve(Router::new().route("/", get(async || "here")), CancellationToken::new()));
    assert_eq!(
        once(&connector, &Call::get(url("/")), BOUNDS).await.unwrap().body,
        "here"
    );
    let lane = lane(connector);
    let error = lane.whole(&Call::get(url("/")), BOUNDS).await.unwrap_err();
    assert!(
        matches!(error, TransportError::Connect(ConnectError::NoHttp2 { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_lane_outlives_its_connection() {
    let certificates = certificates(NAME);
    let router = Router::new().route("/", get(async || "here"));
    let running = serve(router.clone(), &certificates).await;
    let address = running.address;
    let lane = lane(connector(&certificates, NAME, address));
    assert_eq!(lane.whole(&Call::get(url("/")), BOUNDS).await.unwrap().body, "here");
    running.stop.cancel();
    running.task.await.unwrap();
    assert!(lane.whole(&Call::get(url("/")), BOUNDS).await.is_err());

    let tls = tls::server_config(&certificates.chain, &certificates.key).unwrap();
    let again = Listener::bind(address, Some(tls), Limits::default()).await.unwrap();
    tokio::spawn(again.serve(router, CancellationToken::new()));
    assert_eq!(lane.whole(&Call::get(url("/")), BOUNDS).await.unwrap().body, "here");
}

#[tokio::test]
async fn plain_http_only_on_loopback() {
    let error = Listener::bind("0.0.0.0:0".parse().unwrap(), None, Limits::default())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ListenError::NotLoopback { .. }));
}
