//! Who gets in, and what those are told who do not.

use quiesce_runtime::tls::{AcceptError, ClientCertificates, PeerIdentity, answers_in_tls};
use quiesce_testkit::certificates::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Ground, connector, shake, talk, wire};

const AGENT: &str = "spiffe://quiesce/applications/shop/instances/shop-0";

#[tokio::test]
async fn a_client_without_certificate_gets_in_where_one_is_optional() {
    let ground = Ground::new();
    for clients in [ClientCertificates::Ignored, ground.optional()] {
        let (near, far) = shake(&ground.connector(None), &ground.acceptor(clients), "127.0.0.1").await;
        let mut far = far.unwrap();
        assert_eq!(far.identity, None);
        assert_eq!(far.protocol.as_deref(), Some(&b"h2"[..]));
        talk(&mut near.unwrap(), &mut far.stream).await;
    }
}

#[tokio::test]
async fn a_client_with_certificate_is_known_by_its_name() {
    let ground = Ground::new();
    let pair = ground.client(&[AGENT, "shop-0.example.net"]);
    for clients in [ground.optional(), ground.required()] {
        let (near, far) = shake(&ground.connector(Some(&pair)), &ground.acceptor(clients), "127.0.0.1").await;
        let mut far = far.unwrap();
        assert_eq!(far.identity, Some(PeerIdentity::Uri(AGENT.to_owned())));
        talk(&mut near.unwrap(), &mut far.stream).await;
    }
}

#[tokio::test]
async fn a_name_counts_as_well_as_an_address_and_an_ipv6_address_stands_in_brackets() {
    let mut ground = Ground::new();
    ground.server = ground.authority.issue(&["scheduler.example.net", "::1"]).write(ground.directory.path(), "server");
    let acceptor = ground.acceptor(ClientCertificates::Ignored);
    for host in ["scheduler.example.net", "[::1]", "::1"] {
        let (near, _far) = shake(&ground.connector(None), &acceptor, host).await;
        near.unwrap_or_else(|error| panic!("{host}: {error}"));
    }
}

#[tokio::test]
async fn whoever_does_not_trust_the_server_is_told_which_flag_helps() {
    let ground = Ground::new();
    let acceptor = ground.acceptor(ClientCertificates::Ignored);
    let stranger = Authority::new().write(ground.directory.path(), "other-ca.pem");
    let (near, far) = shake(&connector(stranger, None), &acceptor, "127.0.0.1").await;
    assert_eq!(
        near.err().unwrap().to_string(),
        "the certificate of 127.0.0.1 is not signed by a CA that is trusted here: name its CA with --ca"
    );
    assert!(matches!(far, Err(AcceptError::Refused(_))), "{far:?}");
    let (near, _far) = shake(&ground.connector(None), &acceptor, "other.example.net").await;
    assert_eq!(
        near.err().unwrap().to_string(),
        "the certificate of other.example.net is for 127.0.0.1, scheduler.example.net: connect by a name it is for, \
         or give the server one for other.example.net"
    );
}

#[tokio::test]
async fn an_expired_server_is_called_that() {
    let mut ground = Ground::new();
    ground.server = ground.authority.issue_until(&["127.0.0.1"], 2001).write(ground.directory.path(), "server");
    let (near, _far) = shake(&ground.connector(None), &ground.acceptor(ClientCertificates::Ignored), "127.0.0.1").await;
    assert!(near.err().unwrap().to_string().starts_with("the certificate of 127.0.0.1 has expired"));
}

/// In TLS 1.3 the client's handshake is over when the server looks at its certificate: the first read says so.
async fn refused(own: Option<&quiesce_testkit::certificates::Pair>, ground: &Ground) -> (String, AcceptError) {
    let (near, far) = shake(&ground.connector(own), &ground.acceptor(ground.required()), "127.0.0.1").await;
    let error = near.unwrap().read_u8().await.unwrap_err();
    (error.to_string(), far.err().unwrap())
}

#[tokio::test]
async fn a_client_that_needs_a_certificate_is_told_so() {
    let ground = Ground::new();
    let (said, seen) = refused(None, &ground).await;
    assert_eq!(said, "127.0.0.1 takes clients with a certificate only: give one with --cert and --key");
    assert!(matches!(seen, AcceptError::NoCertificate), "{seen:?}");
}

#[tokio::test]
async fn a_client_of_another_ca_and_an_expired_one_are_refused_even_where_a_certificate_is_optional() {
    let ground = Ground::new();
    let foreign = Authority::new().issue(&[AGENT]).write(ground.directory.path(), "foreign");
    let expired = ground.authority.issue_until(&[AGENT], 2001).write(ground.directory.path(), "expired");
    for (pair, reason) in [(&foreign, "its CA is not the one"), (&expired, "it has expired")] {
        let (said, seen) = refused(Some(pair), &ground).await;
        assert!(said.starts_with("127.0.0.1 refuses the certificate of --cert") && said.contains(reason), "{said}");
        assert!(matches!(seen, AcceptError::Certificate(_)), "{seen:?}");
        let acceptor = ground.acceptor(ground.optional());
        let (_near, far) = shake(&ground.connector(Some(pair)), &acceptor, "127.0.0.1").await;
        far.unwrap_err();
    }
}

#[tokio::test]
async fn talk_without_tls_is_recognised_at_either_end() {
    let ground = Ground::new();
    for words in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"QUIESCE/1 ATTACH t0k\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let (mut near, far) = wire().await;
        near.write_all(words).await.unwrap();
        let hang_up = async {
            let mut rest = Vec::new();
            near.read_to_end(&mut rest).await.map(drop)
        };
        let acceptor = ground.acceptor(ClientCertificates::Ignored);
        let (far, _read) = tokio::join!(acceptor.accept(far), hang_up);
        assert!(matches!(far, Err(AcceptError::Plaintext)), "{far:?}");
    }
    let (near, mut far) = wire().await;
    far.write_all(b"\0\0\x18\x04\0\0\0\0\0\0\x01\0\0\0\0").await.unwrap();
    let error = ground.connector(None).connect(near, "127.0.0.1", b"h2").await.err().unwrap();
    assert!(error.to_string().starts_with("127.0.0.1 speaks no TLS on this port"), "{error}");
}

#[tokio::test]
async fn what_answers_in_tls_can_be_found_out_without_trusting_it() {
    let ground = Ground::new();
    let (near, far) = wire().await;
    let acceptor = ground.acceptor(ground.required());
    let (in_tls, _far) = tokio::join!(answers_in_tls(near), acceptor.accept(far));
    assert!(in_tls);
    let (near, mut far) = wire().await;
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert!(!answers_in_tls(near).await);
}

#[tokio::test]
async fn who_speaks_another_protocol_is_refused() {
    let ground = Ground::new();
    let (near, far) = wire().await;
    let (connector, acceptor) = (ground.connector(None), ground.acceptor(ClientCertificates::Ignored));
    let (near, far) = tokio::join!(connector.connect(near, "127.0.0.1", b"http/1.1"), acceptor.accept(far));
    assert!(near.err().unwrap().to_string().contains("not the protocol asked for"));
    far.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for_for_ever() {
    let ground = Ground::new();
    let acceptor = ground.acceptor(ClientCertificates::Ignored);
    let (_near, far) = tokio::io::duplex(64);
    assert!(matches!(acceptor.accept(Box::new(far)).await, Err(AcceptError::Slow)));
    let (near, _far) = tokio::io::duplex(4096);
    let error = ground.connector(None).connect(Box::new(near), "127.0.0.1", b"h2").await.err().unwrap();
    assert!(error.to_string().contains("did not finish the TLS handshake"), "{error}");
}
