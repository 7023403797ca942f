//! Both ends of a conversation that no well-behaved program has: a client and an application that send any bytes.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::strict::{self, Message, Rest};

/// Nothing on one machine takes so long; a test that waits for it has failed.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A client that sends bytes.
pub struct Wire<S> {
    stream: S,
    /// Received, and not yet taken.
    pub buffer: Vec<u8>,
    closed: bool,
}

impl Wire<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self::new(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            closed: false,
        }
    }

    /// Sends, and reads meanwhile. `false`: the other side takes no more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let mut left = bytes;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !left.is_empty() {
            let (mut read, mut write) = tokio::io::split(&mut self.stream);
            tokio::select! {
                written = write.write(left) => match written {
                    Ok(count) if count > 0 => left = &left[count..],
                    _ => return false,
                },
                read = read.read_buf(&mut self.buffer), if !self.closed => self.closed = !matches!(read, Ok(1..)),
                () = tokio::time::sleep_until(deadline) => panic!("the other side does not read"),
            }
        }
        timeout(PATIENCE, self.stream.flush())
            .await
            .expect("the other side does not read")
            .is_ok()
    }

    /// Ends what is sent; what is received goes on.
    pub async fn finish(&mut self) {
        // It may be closed already.
        let _ = timeout(PATIENCE, self.stream.shutdown())
            .await
            .expect("a shutdown");
    }

    /// Reads more. `false`: the other side has closed.
    pub async fn more(&mut self) -> bool {
        match timeout(PATIENCE, self.more_patiently()).await {
            Ok(more) => more,
            Err(_) => panic!("silence after {:?}", String::from_utf8_lossy(&self.buffer)),
        }
    }

    /// The same, however long it takes.
    pub(crate) async fn more_patiently(&mut self) -> bool {
        if !self.closed {
            self.closed = !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..));
        }
        !self.closed
    }

    /// The next response to a request of `method`. `None`: the connection was closed without one.
    pub async fn answer(&mut self, method: &str) -> Option<Message> {
        loop {
            let read = strict::response(&self.buffer, method, self.closed);
            let read = read.map(|read| read.map(|(message, rest)| (message, rest.len())));
            match read {
                Ok(Some((message, left))) => {
                    self.buffer.drain(..self.buffer.len() - left);
                    return Some(message);
                }
                Ok(None) if self.closed => return None,
                Ok(None) => {
                    self.more().await;
                }
                Err(fault) => panic!("{fault} in {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
    }

    /// Reads to the end, and returns everything that was not taken.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }
}

/// Sends everything on a new connection, ends it, and reads to the end.
pub async fn converse(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut wire = Wire::connect(address).await;
    wire.send(bytes).await;
    wire.finish().await;
    wire.rest().await
}

/// Sends one whole request and returns its answer.
pub async fn ask(address: SocketAddr, request: &str) -> Message {
    let mut wire = Wire::connect(address).await;
    wire.send(request.as_bytes()).await;
    let method = request.split(' ').next().unwrap_or_default();
    wire.answer(method)
        .await
        .unwrap_or_else(|| panic!("no answer to {request:?}"))
}

/// What the proxy says of itself in an answer.
pub fn detail(answer: &Message) -> String {
    let status = answer.value("proxy-status").unwrap_or_default();
    let detail = status
        .split("details=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    detail.unwrap_or_default().to_owned()
}

/// An application that keeps every byte it is sent, and answers every whole request with 200.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
pub struct Record {
    /// Of every connection, whole requests in order.
    pub requests: Vec<Message>,
    /// The heads of requests that never ended.
    pub unfinished: Vec<Message>,
    /// What could not be read as requests.
    pub faults: Vec<String>,
}

impl Recorder {
    pub async fn start() -> Self {
        let (listener, address) = listen().await;
        let record = Arc::<Mutex<Record>>::default();
        let recorder = Self {
            address,
            record: record.clone(),
        };
        accept(listener, move |stream, _| {
            record_connection(stream, record.clone())
        });
        recorder
    }

    pub fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

async fn record_connection(mut stream: TcpStream, record: Arc<Mutex<Record>>) {
    let mut buffer = Vec::new();
    let mut answered = 0;
    loop {
        let ended = !matches!(stream.read_buf(&mut buffer).await, Ok(1..));
        let read = strict::requests(&buffer);
        let fresh = read.whole.get(answered..).unwrap_or_default().to_vec();
        answered = read.whole.len();
        let faulty = matches!(read.rest, Rest::Fault(_));
        {
            let mut record = lock(&record);
            record.requests.extend_from_slice(&fresh);
            let judged = fresh
                .iter()
                .filter_map(|message| strict::judge_forwarded(message).err());
            record.faults.extend(judged);
            match read.rest {
                Rest::Fault(fault) => {
                    record
                        .faults
                        .push(format!("{fault} in {:?}", String::from_utf8_lossy(&buffer)));
                }
                Rest::Unfinished { head: Some(head) } if ended => {
                    record.faults.extend(strict::judge_forwarded(&head).err());
                    record.unfinished.push(head);
                }
                _ => {}
            }
        }
        for message in &fresh {
            let body = format!("{} {}", message.method(), message.target());
            let shown = if message.method() == "HEAD" { "" } else { &body };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}", body.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        if ended || faulty {
            return;
        }
    }
}

/// One thing that a scripted application does.
#[derive(Debug, Clone)]
pub enum Act {
    Write(Vec<u8>),
    /// Writes these bytes again and again until the other side takes no more.
    Flood(Vec<u8>),
    /// Waits for the test.
    Wait(Arc<Notify>),
    Close,
}

/// An application whose answer to a request is a script, chosen by the request's path.
#[derive(Clone)]
pub struct Scripted {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<(usize, String)>>>,
    ended: watch::Receiver<HashSet<usize>>,
}

impl Scripted {
    /// `script`: the path, and what happens. Other paths are answered with 200 and the path.
    pub async fn start(script: impl Fn(&str) -> Option<Vec<Act>> + Send + Sync + 'static) -> Self {
        let (listener, address) = listen().await;
        let log = Arc::<Mutex<Vec<(usize, String)>>>::default();
        let (note, ended) = watch::channel(HashSet::new());
        let scripted = Self {
            address,
            log: log.clone(),
            ended,
        };
        let (script, note) = (Arc::new(script), Arc::new(note));
        accept(listener, move |stream, number| {
            let (played, note) = (play(stream, number, script.clone(), log.clone()), note.clone());
            async move {
                played.await;
                note.send_modify(|ended| {
                    ended.insert(number);
                });
            }
        });
        scripted
    }

    /// Waits until a connection is over for the application too.
    pub async fn ended(&self, connection: usize) {
        let mut ended = self.ended.clone();
        let over = ended.wait_for(|ended| ended.contains(&connection));
        timeout(PATIENCE, over)
            .await
            .expect("the connection is closed")
            .expect("the application runs");
    }

    /// The connections on which a path was asked for.
    pub fn connections(&self, path: &str) -> Vec<usize> {
        let log = lock(&self.log);
        log.iter()
            .filter(|(_, asked)| asked == path)
            .map(|(number, _)| *number)
            .collect()
    }
}

type Script = dyn Fn(&str) -> Option<Vec<Act>> + Send + Sync;

async fn play(
    mut stream: TcpStream,
    number: usize,
    script: Arc<Script>,
    log: Arc<Mutex<Vec<(usize, String)>>>,
) {
    let mut buffer = Vec::new();
    let mut seen = 0;
    loop {
        let ended = !matches!(stream.read_buf(&mut buffer).await, Ok(1..));
        let requests = strict::requests(&buffer).whole;
        for request in requests.get(seen..).unwrap_or_default() {
            lock(&log).push((number, request.target().to_owned()));
            let acts = script(request.target()).unwrap_or_else(|| {
                let path = request.target();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
                vec![Act::Write(head.into_bytes())]
            });
            for act in acts {
                let goes_on = match act {
                    Act::Write(bytes) => stream.write_all(&bytes).await.is_ok(),
                    Act::Flood(bytes) => {
                        while stream.write_all(&bytes).await.is_ok() {}
                        false
                    }
                    Act::Wait(go) => {
                        go.notified().await;
                        true
                    }
                    Act::Close => false,
                };
                if !goes_on {
                    return;
                }
            }
        }
        seen = requests.len();
        if ended {
            return;
        }
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream, usize) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let number = AtomicUsize::new(0);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, number.fetch_add(1, Ordering::Relaxed)));
        }
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
