//! One config stream: opened with a Hello, then messages both ways until it is lost or left.

use std::sync::Arc;
use std::time::Duration;

use decision::traffic::shadow::{Difference, Governor};
use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::proxy_message::Message;
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::ConfigSettings;
use super::interest::Questions;
use super::status::PortReport;
use super::update::Refusal;
use crate::identity::{ChannelError, connect, describe};
use crate::shadow::Compared;

/// Messages that wait for the connection to take them; a sender waits when it is full.
const OUTGOING_MESSAGES: usize = 16;

/// Why there is no config stream any more, or none yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the control plane ended the config stream: {0}")]
    Status(String),
    #[error("the control plane closed the config stream")]
    Closed,
    #[error("the control plane did not open the config stream within {0:?}")]
    NotOpened(Duration),
    #[error("the control plane took no message for {0:?}")]
    Stuck(Duration),
}

/// An open stream.
pub(super) struct ConfigStream {
    updates: Streaming<v1::Update>,
    messages: mpsc::Sender<v1::ProxyMessage>,
    ready: watch::Receiver<bool>,
    ports: watch::Receiver<Option<Vec<PortReport>>>,
    send_timeout: Duration,
}

impl ConfigStream {
    pub(super) async fn open(
        settings: &ConfigSettings,
        tls: Arc<ClientConfig>,
        hello: v1::Hello,
        (ready, mut ports): (watch::Receiver<bool>, watch::Receiver<Option<Vec<PortReport>>>),
    ) -> Result<Self, StreamError> {
        // A new stream begins without what was said on another one.
        if ports.borrow().is_some() {
            ports.mark_changed();
        }
        let channel = connect(&settings.control_plane, tls, &settings.channel).await?;
        let mut client =
            ConfigurationClient::new(channel).max_decoding_message_size(settings.max_message_bytes);
        let (messages, outgoing) = mpsc::channel(OUTGOING_MESSAGES);
        // The Hello is there before the call is: a control plane may read it before it answers.
        messages
            .try_send(wire(Message::Hello(hello)))
            .map_err(|_| StreamError::Closed)?;
        let within = settings.channel.call_timeout;
        let opened = timeout(within, client.stream(ReceiverStream::new(outgoing)))
            .await
            .map_err(|_| StreamError::NotOpened(within))?;
        let updates = opened
            .map_err(|status| StreamError::Status(describe(&status)))?
            .into_inner();
        Ok(Self {
            updates,
            messages,
            ready,
            ports,
            send_timeout: settings.send_timeout,
        })
    }

    /// The next thing to answer: an update, or a readiness to pass on.
    pub(super) async fn next(&mut self) -> Result<Event, StreamError> {
        tokio::select! {
            Ok(()) = self.ready.changed() => Ok(Event::Ready(*self.ready.borrow_and_update())),
            Ok(()) = self.ports.changed() => Ok(Event::Ports(self.report().unwrap_or_default())),
            update = self.updates.message() => match update {
                Ok(Some(update)) => Ok(Event::Update(update)),
                Ok(None) => Err(StreamError::Closed),
                Err(status) => Err(StreamError::Status(describe(&status))),
            },
        }
    }

    /// How the ports of a gateway stand, where that was not said yet.
    pub(super) fn news_of_ports(&mut self) -> Option<Vec<PortReport>> {
        self.ports.has_changed().ok().filter(|news| *news)?;
        self.report()
    }

    fn report(&mut self) -> Option<Vec<PortReport>> {
        self.ports.borrow_and_update().clone()
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<(), StreamError> {
        timeout(self.send_timeout, self.messages.send(wire(message)))
            .await
            .map_err(|_| StreamError::Stuck(self.send_timeout))?
            .map_err(|_| StreamError::Closed)
    }

    /// Says goodbye, and waits until the control plane has read it: it then ends its side too.
    pub(super) async fn leave(mut self) -> bool {
        if self.send(Message::Leaving(v1::Leaving {})).await.is_err() {
            return false;
        }
        let Self {
            mut updates,
            messages,
            ..
        } = self;
        drop(messages);
        loop {
            match updates.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }
}

/// What happens on an open stream.
pub(super) enum Event {
    Update(v1::Update),
    Ready(bool),
    Ports(Vec<PortReport>),
}

/// What the control plane has to be told about destinations, where there is anything.
pub(super) fn subscribe(questions: Questions) -> Option<Message> {
    if questions == Questions::default() {
        return None;
    }
    let names = |questions: Vec<model::Question>| questions.iter().map(ToString::to_string).collect();
    let (destinations, forget) = (names(questions.destinations), names(questions.forget));
    Some(Message::Subscribe(v1::Subscribe { destinations, forget }))
}

pub(super) fn ack(nonce: u64) -> Message {
    Message::Ack(v1::Ack { nonce })
}

pub(super) fn refuse(nonce: u64, refusal: &Refusal) -> Message {
    let Refusal { resource, field, why } = refusal.clone();
    Message::Refuse(v1::Refuse {
        nonce,
        resource,
        field,
        why,
    })
}

pub(super) fn readiness(ready: bool) -> Message {
    Message::Readiness(v1::Readiness { ready })
}

pub(super) fn ports(reports: Vec<PortReport>) -> Message {
    let port = |report: PortReport| v1::BoundPort {
        port: u32::from(report.port),
        addresses: report.addresses.iter().map(ToString::to_string).collect(),
        no_address: report.failure.as_ref().is_some_and(|failure| failure.no_address),
        failure: report.failure.map(|failure| failure.why).unwrap_or_default(),
    };
    Message::Listeners(v1::ListenerReport {
        ports: reports.into_iter().map(port).collect(),
    })
}

pub(super) fn shadow(compared: Vec<Compared>) -> Message {
    let place = |compared: Compared| v1::ShadowedDestination {
        destination: compared.place.called.to_string(),
        listener: compared.place.listener.as_deref().unwrap_or_default().to_owned(),
        requests: compared.requests,
        others: compared.differences.others,
        differences: compared.differences.moved.into_iter().map(difference).collect(),
    };
    Message::Shadow(v1::ShadowReport {
        destinations: compared.into_iter().map(place).collect(),
    })
}

fn difference(((now, then), difference): ((Governor, Governor), Difference)) -> v1::ShadowDifference {
    let Difference { requests, example } = difference;
    v1::ShadowDifference {
        now: Some(governor(&now)),
        then: Some(governor(&then)),
        requests,
        method: example.method.into(),
        authority: example.authority.into(),
        path: example.path.into(),
    }
}

fn governor(governor: &Governor) -> v1::Governor {
    use v1::governor::{Governor as Wire, PolicyEffect, Unrouted};
    let governor = match governor {
        Governor::Rule(name) => Wire::Rule(name.to_string()),
        Governor::Service => Wire::Unrouted(Unrouted::Service.into()),
        Governor::NoRoute => Wire::Unrouted(Unrouted::NoRoute.into()),
        Governor::Policy { policy, effect } => Wire::Policy(PolicyEffect {
            policy: policy.to_string(),
            effect: effect.to_string(),
        }),
    };
    v1::Governor {
        governor: Some(governor),
    }
}

fn wire(message: Message) -> v1::ProxyMessage {
    v1::ProxyMessage {
        message: Some(message),
    }
}
