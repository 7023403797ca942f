//! What is measured: the workloads by letter, and the cases of each.

use super::tls::Sessions;

/// Requests per second of the open loop: where a moderately used service lives.
pub(crate) const PLAIN_RATE: u32 = 2_670;
pub(crate) const MESH_RATE: u32 = 1_240;

/// A workload, as `--only` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Workload {
    /// HTTP/1.1, one hop, plain, 64 connections
    #[value(name = "A", alias = "a")]
    A,
    /// HTTP/1.1, two hops with mTLS between, 64 connections
    #[value(name = "B", alias = "b")]
    B,
    /// HTTP/2, two hops with mTLS between, 10 connections of 10 streams
    #[value(name = "C", alias = "c")]
    C,
    /// 1 MiB bodies, one hop plain and two hops with mTLS
    #[value(name = "D", alias = "d")]
    D,
    /// A new connection for every request: plain, full handshake, resumed
    #[value(name = "E", alias = "e")]
    E,
    /// Memory: when ready, per idle connection, per service
    #[value(name = "F", alias = "f")]
    F,
    /// Latency at a fixed rate, one hop plain and two hops with mTLS
    #[value(name = "G", alias = "g")]
    G,
    /// gRPC, two hops with mTLS between
    #[value(name = "H", alias = "h")]
    H,
    /// Opaque TCP through two hops, beside a direct TLS connection
    #[value(name = "I", alias = "i")]
    I,
    /// Weft alone: A with 1,000 routes and services, beside A with one; memory in a mesh of 2,000 services
    #[value(name = "scale")]
    Scale,
    /// Weft alone: G with 10 and with 200 changes of configuration per second, beside G without
    #[value(name = "churn")]
    Churn,
}

/// One table of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    Plain(Size),
    Mesh(Size),
    H2c,
    BulkPlain,
    BulkMesh,
    NewPlain,
    Handshake(SessionKind),
    Ready,
    IdlePlain,
    IdleTls,
    PerService,
    OpenPlain,
    OpenMesh,
    Grpc,
    TcpBulk,
    TcpPing,
    Scale,
    Crowd,
    Churn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Bytes100,
    KiB4,
}

/// [`Sessions`] that can be ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SessionKind {
    Full,
    Resumed,
}

/// A figure of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    CpuMicros,
    MbPerCpu,
    MbPerCpuOfAll,
    PerSecond,
    MbPerSecond,
    P50,
    P99,
    P999,
    ResumedPercent,
    PssMb,
    RssMb,
    KbPerConnection,
    KbPerService,
    /// From the last change to an answer that shows it.
    InEffectMs,
    Syscalls,
    /// Answers in one measurement; for other figures only.
    Requests,
}

/// How long and how much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Of one measurement.
    pub(crate) seconds: u64,
    /// Rounds of what starts new processes, and hardly varies.
    pub(crate) memory_rounds: usize,
    pub(crate) idle_connections: usize,
    /// The larger of two sizes too.
    pub(crate) all_sizes: bool,
}

impl Workload {
    /// Those that run unless `--only` says otherwise.
    pub(crate) const USUAL: [Self; 9] = [
        Self::A,
        Self::B,
        Self::C,
        Self::D,
        Self::E,
        Self::F,
        Self::G,
        Self::H,
        Self::I,
    ];

    pub(crate) fn cases(self, effort: &Effort) -> Vec<Case> {
        let sizes = match effort.all_sizes {
            true => vec![Size::Bytes100, Size::KiB4],
            false => vec![Size::Bytes100],
        };
        match self {
            Self::A => sizes.into_iter().map(Case::Plain).collect(),
            Self::B => sizes.into_iter().map(Case::Mesh).collect(),
            Self::C => vec![Case::H2c],
            Self::D => vec![Case::BulkPlain, Case::BulkMesh],
            Self::E => vec![
                Case::NewPlain,
                Case::Handshake(SessionKind::Full),
                Case::Handshake(SessionKind::Resumed),
            ],
            Self::F => vec![Case::Ready, Case::IdlePlain, Case::IdleTls, Case::PerService],
            Self::G => vec![Case::OpenPlain, Case::OpenMesh],
            Self::H => vec![Case::Grpc],
            Self::I => vec![Case::TcpBulk, Case::TcpPing],
            Self::Scale => vec![Case::Scale, Case::Crowd],
            Self::Churn => vec![Case::Churn],
        }
    }
}

impl Case {
    /// The workload's letter, or name.
    pub(crate) fn workload(self) -> &'static str {
        match self {
            Self::Plain(_) => "A",
            Self::Mesh(_) => "B",
            Self::H2c => "C",
            Self::BulkPlain | Self::BulkMesh => "D",
            Self::NewPlain | Self::Handshake(_) => "E",
            Self::Ready | Self::IdlePlain | Self::IdleTls | Self::PerService => "F",
            Self::OpenPlain | Self::OpenMesh => "G",
            Self::Grpc => "H",
            Self::TcpBulk | Self::TcpPing => "I",
            Self::Scale | Self::Crowd => "scale",
            Self::Churn => "churn",
        }
    }

    pub(crate) fn title(self) -> String {
        match self {
            Self::Plain(size) => format!("HTTP/1.1, one hop, plain, 64 connections, {}", size.title()),
            Self::Mesh(size) => format!("HTTP/1.1, two hops, mTLS, 64 connections, {}", size.title()),
            Self::H2c => "HTTP/2, two hops, mTLS, 10 connections of 10 streams, 100 B".to_owned(),
            Self::BulkPlain => "1 MiB bodies, one hop, plain".to_owned(),
            Self::BulkMesh => "1 MiB bodies, two hops, mTLS".to_owned(),
            Self::NewPlain => "a new connection per request, plain".to_owned(),
            Self::Handshake(SessionKind::Full) => {
                "a new connection per request, full mTLS handshake, the accepting side".to_owned()
            }
            Self::Handshake(SessionKind::Resumed) => {
                "a new connection per request, resumed mTLS session, the accepting side".to_owned()
            }
            Self::Ready => "memory of one proxy when ready".to_owned(),
            Self::IdlePlain => "memory per idle connection, plain".to_owned(),
            Self::IdleTls => "memory per idle connection, mTLS, the accepting side".to_owned(),
            Self::PerService => "memory per service that a sidecar has called".to_owned(),
            Self::OpenPlain => format!("{PLAIN_RATE} requests/s, one hop, plain, 100 B"),
            Self::OpenMesh => format!("{MESH_RATE} requests/s, two hops, mTLS, 100 B"),
            Self::Grpc => "gRPC, two hops, mTLS, 10 connections of 10 streams, 100 B".to_owned(),
            Self::TcpBulk => "opaque TCP, two hops, mTLS, bulk".to_owned(),
            Self::TcpPing => "opaque TCP, two hops, mTLS, 64 B there and back".to_owned(),
            Self::Scale => "HTTP/1.1, one hop, plain, 64 connections, many routes and services".to_owned(),
            Self::Crowd => {
                "memory of a sidecar that calls 5 services, of 2,000 with 10 endpoints and 3 routes each"
                    .to_owned()
            }
            Self::Churn => format!("{MESH_RATE} requests/s, two hops, mTLS, while the configuration changes"),
        }
    }

    /// The columns; ratios are of the first.
    pub(crate) fn metrics(self) -> &'static [Metric] {
        use Metric::{
            CpuMicros, InEffectMs, KbPerConnection, KbPerService, MbPerCpu, MbPerCpuOfAll, MbPerSecond, P50,
            P99, P999, PerSecond, PssMb, ResumedPercent, RssMb, Syscalls,
        };
        match self {
            Self::Plain(_) | Self::Mesh(_) | Self::H2c | Self::Grpc | Self::Scale => {
                &[CpuMicros, PerSecond, P99, Syscalls]
            }
            Self::BulkPlain | Self::BulkMesh => &[MbPerCpu, MbPerSecond],
            Self::NewPlain => &[CpuMicros, PerSecond, P99],
            Self::Handshake(_) => &[CpuMicros, PerSecond, P99, ResumedPercent],
            Self::Ready | Self::Crowd => &[RssMb, PssMb],
            Self::IdlePlain | Self::IdleTls => &[KbPerConnection],
            Self::PerService => &[KbPerService],
            Self::OpenPlain | Self::OpenMesh => &[CpuMicros, P50, P99, P999],
            Self::TcpBulk => &[MbPerCpuOfAll, MbPerCpu, MbPerSecond],
            Self::TcpPing => &[P50, P99, P999, CpuMicros],
            Self::Churn => &[P99, P50, P999, CpuMicros, InEffectMs],
        }
    }
}

impl Size {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Bytes100 => "/100",
            Self::KiB4 => "/4k",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Bytes100 => "100 B",
            Self::KiB4 => "4 KiB",
        }
    }
}

impl SessionKind {
    pub(crate) fn sessions(self) -> Sessions {
        match self {
            Self::Full => Sessions::Full,
            Self::Resumed => Sessions::Resumed,
        }
    }
}

impl Metric {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CpuMicros => "CPU µs/request",
            Self::MbPerCpu => "MB/CPU s",
            Self::MbPerCpuOfAll => "MB/CPU s, ends included",
            Self::PerSecond => "requests/s",
            Self::MbPerSecond => "MB/s",
            Self::P50 => "p50 ms",
            Self::P99 => "p99 ms",
            Self::P999 => "p99.9 ms",
            Self::ResumedPercent => "resumed %",
            Self::PssMb => "PSS MB",
            Self::RssMb => "RSS MB",
            Self::KbPerConnection => "KB/connection",
            Self::KbPerService => "KB/service",
            Self::InEffectMs => "last change in effect ms",
            Self::Syscalls => "syscalls/request",
            Self::Requests => "requests",
        }
    }

    pub(crate) fn decimals(self) -> usize {
        match self {
            Self::MbPerCpu
            | Self::MbPerCpuOfAll
            | Self::PerSecond
            | Self::MbPerSecond
            | Self::ResumedPercent
            | Self::InEffectMs
            | Self::Requests => 0,
            Self::P50 | Self::P99 | Self::P999 | Self::Syscalls => 2,
            Self::CpuMicros | Self::PssMb | Self::RssMb | Self::KbPerConnection | Self::KbPerService => 1,
        }
    }
}
