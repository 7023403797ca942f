//! The tests' gRPC service, with every kind of method, and its client.

use std::pin::Pin;

use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::app::App;

/// Generated code.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("weft.tests");
}

pub use v1::Words;
pub use v1::echo_client::EchoClient;
use v1::echo_server::{Echo, EchoServer};

/// The path prefix of its methods.
pub const SERVICE: &str = "/weft.tests.Echo";

/// A request of text.
pub fn words(text: &str) -> Words {
    Words {
        text: text.to_owned(),
        ..Words::default()
    }
}

/// A gRPC application: [`Words`] in, words out; metadata `x-say` comes back as `x-said`.
pub async fn app() -> App {
    let service = EchoServer::new(EchoService);
    App::http(move |request| {
        let mut service = service.clone();
        async move {
            use http_body_util::BodyExt;
            use tower::Service;
            let answer = service.call(request).await.unwrap_or_else(|never| match never {});
            answer.map(|body| body.map_err(Into::into).boxed_unsync())
        }
    })
    .await
}

#[derive(Clone)]
struct EchoService;

type Answers = Pin<Box<dyn Stream<Item = Result<Words, Status>> + Send>>;

#[tonic::async_trait]
impl Echo for EchoService {
    async fn say(&self, request: Request<Words>) -> Result<Response<Words>, Status> {
        let (metadata, words) = (request.metadata().clone(), request.into_inner());
        fail(&words)?;
        Ok(said(&metadata, words))
    }

    type RepeatStream = Answers;

    async fn repeat(&self, request: Request<Words>) -> Result<Response<Answers>, Status> {
        let (metadata, words) = (request.metadata().clone(), request.into_inner());
        let count = usize::try_from(words.times).expect("not that many");
        let mut answers: Vec<Result<Words, Status>> = vec![Ok(words.clone()); count];
        if let Err(status) = fail(&words) {
            answers.push(Err(status));
        }
        Ok(said(&metadata, Box::pin(tokio_stream::iter(answers)) as Answers))
    }

    async fn collect(&self, request: Request<Streaming<Words>>) -> Result<Response<Words>, Status> {
        let (metadata, mut stream) = (request.metadata().clone(), request.into_inner());
        let mut all = Words::default();
        while let Some(words) = stream.next().await {
            let words = words?;
            fail(&words)?;
            all.text += &words.text;
            all.times += 1;
        }
        Ok(said(&metadata, all))
    }

    type ChatStream = Answers;

    async fn chat(&self, request: Request<Streaming<Words>>) -> Result<Response<Answers>, Status> {
        let (metadata, stream) = (request.metadata().clone(), request.into_inner());
        let answers = stream.map(|words| words.and_then(|words| fail(&words).map(|()| words)));
        Ok(said(&metadata, Box::pin(answers) as Answers))
    }
}

fn fail(words: &Words) -> Result<(), Status> {
    if words.fail == 0 {
        return Ok(());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-why", HeaderValue::from_static("asked to"));
    let code = Code::from(i32::try_from(words.fail).expect("a code"));
    Err(Status::with_metadata(
        code,
        format!("said: {}", words.text),
        MetadataMap::from_headers(trailers),
    ))
}

fn said<T>(metadata: &MetadataMap, body: T) -> Response<T> {
    let mut response = Response::new(body);
    if let Some(value) = metadata.get("x-say") {
        response.metadata_mut().insert("x-said", value.clone());
    }
    response
}
