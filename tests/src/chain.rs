//! Services that each call the next one, as instrumented applications do: with the trace that they were called in.

use std::net::SocketAddr;

use tokio::sync::watch;

use crate::client::{Http, nothing, request};
use crate::{App, Mesh, Sidecar, text};

/// A request enters at the visitor's sidecar, passes every service, and is answered by the last.
pub struct Chain {
    pub visitor: Sidecar,
    /// Of the services, in their order.
    pub sidecars: Vec<Sidecar>,
    /// All but the last, which is the test's own.
    pub apps: Vec<App>,
}

impl Chain {
    /// The services must exist in the mesh, on port 80; `last` is beside the last of them.
    pub async fn start(mesh: &Mesh, services: &[&str], last: &App) -> Self {
        let (mut apps, mut sidecars, mut outbound) = (Vec::new(), Vec::new(), Vec::new());
        for pair in services.windows(2) {
            let (tell, told) = watch::channel(None);
            apps.push(calling(told, &format!("http://{}/", pair[1])).await);
            outbound.push(tell);
        }
        for (name, app) in services.iter().zip(apps.iter().chain([last])) {
            sidecars.push(mesh.workload(name).app(app.address).start().await);
        }
        for (tell, sidecar) in outbound.iter().zip(&sidecars) {
            tell.send_replace(Some(sidecar.outbound));
        }
        Self {
            visitor: mesh.visitor().await,
            sidecars,
            apps,
        }
    }
}

/// An application that calls `url` for every request, with its trace headers, and answers as it was answered. `outbound`
/// is where its sidecar takes calls, once that is known.
pub async fn calling(outbound: watch::Receiver<Option<SocketAddr>>, url: &str) -> App {
    let url = url.to_owned();
    App::http(move |arrived| {
        let (mut outbound, url) = (outbound.clone(), url.clone());
        async move {
            let address = outbound.wait_for(Option::is_some).await;
            let address = address.expect("a sidecar").expect("an address");
            let mut call = request("POST", &url);
            for name in ["traceparent", "tracestate", "baggage"] {
                if let Some(value) = arrived.headers().get(name) {
                    call = call.header(name, value);
                }
            }
            let call = call.body(nothing()).expect("a request");
            let answer = Http::http1(address).await.send(call).await;
            text(answer.status.as_u16(), answer.text())
        }
    })
    .await
}
