//! Mail that goes on to a next hop.

use super::world::{Options, Talk, World, send, tenant_id};
use crate::{ProbeError, Route, TlsPolicy};
use rehome_domain::{id::MoveId, recipient::MailboxState};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs};

/// Two organisations: contoso sends what is fabrikam's there.
async fn two() -> (World, World) {
    let fabrikam = World::new(&["fabrikam.example"], Options::default()).await;
    let routes = vec![("Fabrikam.example".to_owned(), fabrikam.route(TlsPolicy::Opportunistic))];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    (contoso, fabrikam)
}

#[tokio::test]
async fn a_moved_mailbox_gets_its_mail() {
    let (contoso, fabrikam) = two().await;
    fabrikam.mailbox("anna@fabrikam.example").await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    let body = ".a line\r\n".repeat(60_000);
    let sent = format!("Subject: a\r\n\r\n.{}", body.replace("\n.", "\n.."));
    assert!(
        send(&contoso, "anna@contoso.example", sent.as_bytes())
            .await
            .starts_with("250 ")
    );
    let files = fabrikam.inbox("anna@fabrikam.example");
    let text = String::from_utf8(files[0].clone()).unwrap();
    assert!(text.ends_with(&format!("\r\nSubject: a\r\n\r\n{body}")));
    let starts: Vec<&str> = text.split("\r\n").filter(|l| l.starts_with("Re")).collect();
    assert!(
        starts[0].starts_with("Received: from mx.contoso.example "),
        "{starts:?}"
    );
    assert_eq!(starts[1], format!("Rehome-Trace: {}", tenant_id("fabrikam.example")));
    assert!(starts[2].starts_with("Received: from client.example "), "{starts:?}");
    assert_eq!(starts[3], format!("Rehome-Trace: {}", tenant_id("contoso.example")));
    assert!(text.contains("\tfor <anna@fabrikam.example>;\r\n"));
}

#[tokio::test]
async fn the_next_hops_answers_are_ours() {
    let (contoso, fabrikam) = two().await;
    contoso
        .mail_user("gone@contoso.example", Some("gone@fabrikam.example"))
        .await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    contoso
        .mail_user("box@contoso.example", Some("box@fabrikam.example"))
        .await;
    let anna = fabrikam.mailbox("anna@fabrikam.example").await;
    fabrikam.mailbox("box@fabrikam.example").await;
    // Refused by the next hop: the sender learns it at RCPT, and the others go on.
    let mut talk = Talk::mail(&contoso).await;
    assert!(
        talk.rcpt("gone@contoso.example")
            .await
            .starts_with("550 5.1.1 The next hop says: ")
    );
    for address in ["anna@contoso.example", "box@contoso.example"] {
        assert!(talk.rcpt(address).await.starts_with("250 "));
    }
    assert!(talk.rcpt("gone@contoso.example").await.starts_with("550 "));
    assert!(talk.data(b"x\r\n").await.starts_with("250 "));
    // Deferred there: deferred here.
    fabrikam.set_state(&anna, MailboxState::NotYetShown).await;
    assert!(
        send(&contoso, "anna@contoso.example", b"x\r\n")
            .await
            .starts_with("451 4.2.1 ")
    );
    fabrikam.set_state(&anna, MailboxState::Open).await;
    // Deferred there at the end only.
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("250 "));
    fabrikam
        .set_state(&anna, MailboxState::InCutover(MoveId::from_u128(1)))
        .await;
    assert!(talk.data(b"x\r\n").await.starts_with("451 "));
    assert_eq!(fabrikam.inbox("anna@fabrikam.example").len(), 1);
    assert_eq!(fabrikam.inbox("box@fabrikam.example").len(), 1);
}

#[tokio::test]
async fn one_next_hop_in_one_transaction() {
    let (contoso, fabrikam) = two().await;
    contoso.mailbox("here@contoso.example").await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    fabrikam.mailbox("anna@fabrikam.example").await;
    for (first, second) in [("here", "anna"), ("anna", "here")] {
        let mut talk = Talk::mail(&contoso).await;
        assert!(talk.rcpt(&format!("{first}@contoso.example")).await.starts_with("250 "));
        assert!(
            talk.rcpt(&format!("{second}@contoso.example"))
                .await
                .starts_with("452 4.5.3 ")
        );
        assert!(talk.data(b"x\r\n").await.starts_with("250 "));
    }
    assert_eq!(contoso.inbox("here@contoso.example").len(), 1);
    assert_eq!(fabrikam.inbox("anna@fabrikam.example").len(), 1);
}

#[tokio::test]
async fn a_next_hop_that_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let route = Route {
        host: "127.0.0.1".into(),
        port,
        tls: TlsPolicy::None,
    };
    let routes = vec![("fabrikam.example".to_owned(), route)];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    let mut talk = Talk::mail(&contoso).await;
    assert!(talk.rcpt("anna@contoso.example").await.starts_with("451 4.4.1 "));
    assert!(talk.say("DATA").await.starts_with("503 "));
    let error = contoso
        .routing
        .probe(&"anna@fabrikam.example".parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, ProbeError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_circle_ends() {
    // Each believes that the other has the mailbox.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let back = Route {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        tls: TlsPolicy::None,
    };
    let routes = vec![("contoso.example".to_owned(), back)];
    let fabrikam = World::new(
        &["fabrikam.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    let routes = vec![("fabrikam.example".to_owned(), fabrikam.route(TlsPolicy::None))];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    fabrikam
        .mail_user("anna@fabrikam.example", Some("anna@contoso.example"))
        .await;
    let serving = contoso.routing.clone();
    let task = tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    // Next hops are asked before there is a header that could show it.
    let reply = send(&contoso, "anna@contoso.example", b"x\r\n").await;
    assert_eq!(
        reply,
        "451 4.4.6 The next hop says: Suspected loop, try again later\r\n"
    );
    task.abort();
}

#[tokio::test]
async fn probes() {
    let (contoso, fabrikam) = two().await;
    let anna = fabrikam.mailbox("anna@fabrikam.example").await;
    let probe = async |address: &str| contoso.routing.probe(&address.parse().unwrap()).await.unwrap();
    let found = probe("anna@fabrikam.example").await;
    assert!(
        found.accepted && !found.is_ourselves && found.tenant_here.is_none(),
        "{found:?}"
    );
    let nobody = probe("nobody@fabrikam.example").await;
    assert!(
        !nobody.accepted && !nobody.transient && nobody.reply.starts_with("550 5.1.1"),
        "{nobody:?}"
    );
    fabrikam.set_state(&anna, MailboxState::NotYetShown).await;
    // A mailbox in cutover is known, and mail for it waits: the answer to a probe is yes.
    let later = probe("anna@fabrikam.example").await;
    assert!(later.accepted, "{later:?}");
    assert!(fabrikam.inbox("anna@fabrikam.example").is_empty());
}

/// Sender and recipient go to a next hop together where it takes several commands at once: this one answers neither alone.
#[tokio::test]
async fn sender_and_recipient_are_named_at_once() {
    for (answers, accepted, reply) in [
        ("250 2.1.0 fine\r\n250 2.1.5 fine\r\n", true, "250 2.1.5"),
        ("451 4.3.0 later\r\n503 5.5.1 no sender\r\n", false, "451 4.3.0"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hop = tokio::spawn(async move {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let said = ["220 hop.example\r\n", "250-hop.example\r\n250 PIPELINING\r\n", answers];
            let mut heard = String::new();
            for (said, lines) in said.into_iter().zip([1, 2, 0]) {
                stream.get_mut().write_all(said.as_bytes()).await.unwrap();
                for _ in 0..lines {
                    stream.read_line(&mut heard).await.unwrap();
                }
            }
            // A goodbye is not waited for, so it may not come.
            let _ = stream.read_line(&mut heard).await;
            heard
        });
        let route = Route {
            host: "127.0.0.1".into(),
            port,
            tls: TlsPolicy::None,
        };
        let options = Options {
            routes: vec![("fabrikam.example".to_owned(), route)],
            ..Options::default()
        };
        let contoso = World::new(&["contoso.example"], options).await;
        let address = "anna@fabrikam.example".parse().unwrap();
        let probe = contoso.routing.probe(&address);
        let found = tokio::time::timeout(Duration::from_secs(20), probe).await;
        let found = found.expect("both are said at once").unwrap();
        assert!(
            found.accepted == accepted && found.reply.starts_with(reply),
            "{found:?}"
        );
        let heard = hop.await.unwrap();
        assert!(
            heard.contains("MAIL FROM:<>\r\nRCPT TO:<anna@fabrikam.example>\r\n"),
            "{heard}"
        );
    }
}

#[tokio::test]
async fn a_probe_that_reaches_ourselves_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = Route {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        tls: TlsPolicy::None,
    };
    let routes = vec![("contoso.example".to_owned(), own)];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    contoso.mailbox("anna@contoso.example").await;
    let serving = contoso.routing.clone();
    let task = tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let found = contoso
        .routing
        .probe(&"anna@contoso.example".parse().unwrap())
        .await
        .unwrap();
    assert!(found.accepted && found.is_ourselves, "{found:?}");
    assert_eq!(found.tenant_here, Some(tenant_id("contoso.example")));
    task.abort();
}

/// A certificate for a name, and the authorities that know it.
fn certificate(name: &str) -> (Arc<ServerConfig>, RootCertStore) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), roots)
}

#[tokio::test]
async fn encryption_by_policy() {
    // certificate's name, policy, whether its authority is known, reply, protocol in the trace
    let table = [
        ("127.0.0.1", TlsPolicy::Required, true, "250 ", "ESMTPS"),
        ("127.0.0.1", TlsPolicy::Required, false, "451 4.4.1 ", ""),
        ("mx.other.example", TlsPolicy::Required, true, "451 4.4.1 ", ""),
        ("mx.other.example", TlsPolicy::Opportunistic, false, "250 ", "ESMTPS"),
        ("127.0.0.1", TlsPolicy::None, true, "250 ", "ESMTP"),
    ];
    for (name, policy, known, reply, protocol) in table {
        let (config, roots) = certificate(name);
        let fabrikam = World::new(
            &["fabrikam.example"],
            Options {
                tls: Some(config),
                ..Options::default()
            },
        )
        .await;
        fabrikam.mailbox("anna@fabrikam.example").await;
        let routes = vec![("fabrikam.example".to_owned(), fabrikam.route(policy))];
        let roots = known.then_some(roots);
        let contoso = World::new(
            &["contoso.example"],
            Options {
                routes,
                roots,
                ..Options::default()
            },
        )
        .await;
        contoso
            .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
            .await;
        let got = send(&contoso, "anna@contoso.example", b"x\r\n").await;
        assert!(got.starts_with(reply), "{name} {policy:?} {known}: {got}");
        if let Some(file) = fabrikam.inbox("anna@fabrikam.example").first() {
            let text = String::from_utf8_lossy(file);
            assert!(
                text.contains(&format!("by mx.fabrikam.example with {protocol} id")),
                "{text}"
            );
        }
    }
    // Required, and not offered.
    let fabrikam = World::new(&["fabrikam.example"], Options::default()).await;
    let routes = vec![("fabrikam.example".to_owned(), fabrikam.route(TlsPolicy::Required))];
    let contoso = World::new(
        &["contoso.example"],
        Options {
            routes,
            ..Options::default()
        },
    )
    .await;
    contoso
        .mail_user("anna@contoso.example", Some("anna@fabrikam.example"))
        .await;
    assert!(
        send(&contoso, "anna@contoso.example", b"x\r\n")
            .await
            .starts_with("451 4.4.1 ")
    );
}
