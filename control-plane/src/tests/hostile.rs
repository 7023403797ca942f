//! Bad input: a clear answer or a closed connection, and everybody else is served on.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::*;

async fn closed(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.len() < 1024, "{rest:?}");
}

#[tokio::test]
async fn garbage_and_silence_are_closed() {
    let plane = Plane::with(|settings| {
        settings.limits.handshake_timeout = Duration::from_millis(200);
        settings.limits.anonymous_timeout = Duration::from_millis(200);
    })
    .await;
    let address = plane.running().grpc_addr();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        closed(stream).await;
    }
    // Behind TLS too: what is no HTTP/2, and who joins no mesh.
    let hash = <sha2::Sha256 as sha2::Digest>::digest(&plane.bundle().roots()[0]).into();
    let connector = TlsConnector::from(certs::first_contact_config(hash).unwrap());
    for garbage in [&[0xff; 4096][..], b""] {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector
            .connect(ServerName::IpAddress(address.ip().into()), stream)
            .await
            .unwrap();
        stream.write_all(garbage).await.unwrap();
        closed(stream).await;
    }
    assert_eq!(plane.status().await.generation, 0);
}

#[tokio::test]
async fn connections_have_a_bound() {
    let plane = Plane::with(|settings| settings.limits.connections = 1).await;
    let address = plane.running().grpc_addr();
    let mut operator = plane.operator().await;
    closed(TcpStream::connect(address).await.unwrap()).await;
    assert!(soon(operator.status(v1::StatusRequest {})).await.is_ok());
}

#[tokio::test]
async fn messages_have_a_bound() {
    let plane = Plane::with(|settings| settings.limits.message_bytes = 4096).await;
    let long = "weft-join.".to_owned() + &"A".repeat(100_000);
    let refused = join(&plane, &long, Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

    let cell = plane.join("cart").await;
    let large = v1::Hello {
        proxy_version: "x".repeat(5000),
        ..hello("cart")
    };
    let mut stream = plane.stream(&cell, large).await.unwrap();
    assert_eq!(stream.end().await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_stream_says_what_is_wrong() {
    let plane = Plane::with(|settings| {
        settings.limits.subscriptions = 2;
        settings.limits.hello_timeout = Duration::from_secs(20);
    })
    .await;
    let cell = plane.join("cart").await;
    let ends = async |first: Message, second: Option<Message>| {
        let mut stream = Proxy::open(plane.channel(&cell).await, first).await.unwrap();
        if let Some(second) = second {
            stream.send(second).await;
        }
        let status = stream.end().await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let bad_hello = v1::Hello {
        inbound: "nowhere".to_owned(),
        ..hello("cart")
    };
    let (code, why) = ends(Message::Hello(bad_hello), None).await;
    assert!(
        code == Code::InvalidArgument && why.starts_with("inbound: "),
        "{why}"
    );
    let (code, _) = ends(Message::Ack(v1::Ack { nonce: 1 }), None).await;
    assert_eq!(code, Code::InvalidArgument);

    let fine = || Message::Hello(hello("cart"));
    let (code, _) = ends(fine(), Some(fine())).await;
    assert_eq!(code, Code::InvalidArgument);
    let (code, why) = ends(fine(), Some(Message::Ack(v1::Ack { nonce: 77 }))).await;
    assert!(code == Code::InvalidArgument && why.contains("77"), "{why}");
    let subscribe = |names: &[&str]| {
        Message::Subscribe(v1::Subscribe {
            destinations: names.iter().map(|name| (*name).to_owned()).collect(),
            forget: Vec::new(),
        })
    };
    let (code, why) = ends(fine(), Some(subscribe(&["shop/cart", "Shop"]))).await;
    assert!(
        code == Code::InvalidArgument && why.starts_with("destinations[1]: "),
        "{why}"
    );
    let (code, _) = ends(fine(), Some(subscribe(&["a/a", "a/b", "a/c"]))).await;
    assert_eq!(code, Code::ResourceExhausted);
}

#[tokio::test]
async fn who_does_not_answer_is_let_go() {
    let plane = Plane::with(|settings| {
        settings.limits.acknowledge_timeout = Duration::from_millis(100);
        settings.limits.hello_timeout = Duration::from_millis(100);
    })
    .await;
    let mut deaf = plane
        .stream(&plane.join("cart").await, hello("cart"))
        .await
        .unwrap();
    assert_eq!(deaf.end().await.unwrap_err().code(), Code::DeadlineExceeded);
    let (messages, outgoing) = mpsc::channel(1);
    let mut mute = ConfigurationClient::new(plane.channel(&plane.join("cart").await).await);
    let mut updates = soon(mute.stream(ReceiverStream::new(outgoing)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        soon(updates.message()).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
    drop::<mpsc::Sender<v1::ProxyMessage>>(messages);
}
