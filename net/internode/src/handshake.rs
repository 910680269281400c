//! The first bytes of a connection between nodes: who asks whom for what, and the answer.
//!
//! ```text
//! greeting ::= "CETO" length:u16 body crc:u32                       integers little-endian, CRC-32 of the body
//! hello    ::= oldest:u8 newest:u8 channel:u8 compression:u8 shard:u16 shards:u16 host:16 wanted:16 address cluster:text
//! answer   ::= code:u8 version:u8 compression:u8 shard:u16 shards:u16 host:16 reason:text
//! address  ::= 4 ip:4 port:u16 | 6 ip:16 port:u16
//! text     ::= length:u8 bytes
//! ```
//!
//! The side that connects says hello, the other side answers once; frames follow when the code is 0. The layout up to
//! `newest` and up to `version` never changes, so nodes of any two versions understand why they part.
//!
//! Never: a node that talks to itself, to one of another cluster, or to another host than the one it wanted.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, BytesMut};
use uuid::Uuid;

use crate::frame::Compression;
use crate::message::HostId;

/// First bytes in both directions.
pub const MAGIC: [u8; 4] = *b"CETO";
/// Version of the link protocol: of frames, envelopes and messages.
pub const LINK_VERSION: u8 = 1;
/// Oldest version that this node speaks too.
pub const LINK_VERSION_OLDEST: u8 = 1;
/// Bytes of the longest greeting's body.
const BODY_MAX: usize = 1024;
const HEAD: usize = 6;
const TAIL: usize = 4;
/// Bytes of the longest text.
const TEXT_MAX: usize = 255;

/// What a connection is for. Each has its own, so that bulk never delays statements.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// Reads, writes and their answers.
    Statements,
    /// Streaming, repair, hints.
    Bulk,
    /// Gossip and the schema's group.
    Control,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Channel; 3] = [Self::Statements, Self::Bulk, Self::Control];

    /// As metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Statements => "statements",
            Self::Bulk => "bulk",
            Self::Control => "control",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Statements => 1,
            Self::Bulk => 2,
            Self::Control => 3,
        }
    }
}

/// What the connecting side says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Oldest version it speaks.
    pub oldest: u8,
    /// Newest version it speaks.
    pub newest: u8,
    /// What the connection is for.
    pub channel: Channel,
    /// What it would like.
    pub compression: Compression,
    /// Its shard.
    pub shard: u16,
    /// Its shards.
    pub shard_count: u16,
    /// Its identity.
    pub host: HostId,
    /// Whom it wants to reach; anybody when absent.
    pub wanted: Option<HostId>,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Its cluster's name, cut at 255 bytes.
    pub cluster: String,
}

/// The answer of a node that takes the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version to speak.
    pub version: u8,
    /// The compression of both directions.
    pub compression: Compression,
    /// The shard that serves the connection.
    pub shard: u16,
    /// Shards there.
    pub shard_count: u16,
    /// Who answers.
    pub host: HostId,
}

/// Why a node does not take a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalKind {
    /// The clusters' names differ.
    OtherCluster,
    /// No version is spoken by both.
    Version,
    /// The node has connected to itself.
    Myself,
    /// Another node was wanted.
    OtherHost,
    /// The node takes nobody now, or not this one.
    NotWelcome,
    /// A code of a later version.
    Unknown,
}

impl RefusalKind {
    const ALL: [RefusalKind; 5] = [
        Self::OtherCluster,
        Self::Version,
        Self::Myself,
        Self::OtherHost,
        Self::NotWelcome,
    ];

    fn code(self) -> u8 {
        match self {
            Self::OtherCluster => 1,
            Self::Version => 2,
            Self::Myself => 3,
            Self::OtherHost => 4,
            Self::NotWelcome => 5,
            Self::Unknown => u8::MAX,
        }
    }
}

/// A refusal with its reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// For programs.
    pub kind: RefusalKind,
    /// Who refuses.
    pub host: HostId,
    /// For people.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Bytes that are no greeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GreetingError {
    /// The first bytes are of another protocol.
    Magic,
    /// Longer than any greeting.
    TooLong,
    /// The checksum differs.
    Checksum,
    /// A field is missing or means nothing.
    Malformed(&'static str),
}

impl fmt::Display for GreetingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => {
                f.write_str("not a greeting of a CetoDB node; the port is for links between nodes only")
            }
            Self::TooLong => write!(f, "a greeting of more than {BODY_MAX} bytes"),
            Self::Checksum => f.write_str("the checksum of a greeting differs"),
            Self::Malformed(field) => write!(f, "a greeting's {field} is missing or wrong"),
        }
    }
}

impl std::error::Error for GreetingError {}

/// What a node needs to know of itself to judge a hello.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its identity.
    pub host: HostId,
    /// Its cluster's name.
    pub cluster: String,
    /// The shard that judges.
    pub shard: u16,
    /// Its shards.
    pub shard_count: u16,
    /// What it would like, both wanting it being enough.
    pub compression: Compression,
}

impl Identity {
    /// Takes a connection, or says why not.
    ///
    /// # Errors
    /// With the reason that the other side is told.
    pub fn judge(&self, hello: &Hello) -> Result<Welcome, Refusal> {
        let refuse = |kind, reason: String| {
            let host = self.host;
            Err(Refusal { kind, host, reason })
        };
        if hello.newest < LINK_VERSION_OLDEST || hello.oldest > LINK_VERSION {
            return refuse(
                RefusalKind::Version,
                format!(
                    "it speaks versions {} to {} of the protocol between nodes, this node {LINK_VERSION_OLDEST} to \
                     {LINK_VERSION}: upgrade one version at a time",
                    hello.oldest, hello.newest
                ),
            );
        }
        if hello.cluster != cut(&self.cluster) {
            return refuse(
                RefusalKind::OtherCluster,
                format!(
                    "it is of the cluster '{}', this node of '{}': change cluster_name or seeds of one of them",
                    hello.cluster, self.cluster
                ),
            );
        }
        if hello.host == self.host {
            return refuse(
                RefusalKind::Myself,
                format!(
                    "both ends are the host {}: a node needs no link to itself",
                    self.host
                ),
            );
        }
        if hello.wanted.is_some_and(|wanted| wanted != self.host) {
            return refuse(
                RefusalKind::OtherHost,
                format!("this address belongs to the host {} now", self.host),
            );
        }
        let compression = match (hello.compression, self.compression) {
            (Compression::Lz4, Compression::Lz4) => Compression::Lz4,
            _ => Compression::None,
        };
        Ok(Welcome {
            version: hello.newest.min(LINK_VERSION),
            compression,
            shard: self.shard,
            shard_count: self.shard_count,
            host: self.host,
        })
    }
}

/// Appends a hello.
pub fn put_hello(out: &mut BytesMut, hello: &Hello) {
    greet(out, |body| {
        body.put_slice(&[
            hello.oldest,
            hello.newest,
            hello.channel.code(),
            hello.compression.code(),
        ]);
        body.put_u16_le(hello.shard);
        body.put_u16_le(hello.shard_count);
        body.put_slice(hello.host.0.as_bytes());
        body.put_slice(hello.wanted.map_or(Uuid::nil(), |wanted| wanted.0).as_bytes());
        match hello.address.ip() {
            IpAddr::V4(ip) => {
                body.put_u8(4);
                body.put_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                body.put_u8(6);
                body.put_slice(&ip.octets());
            }
        }
        body.put_u16_le(hello.address.port());
        put_text(body, &hello.cluster);
    });
}

/// Appends the answer to a hello.
pub fn put_answer(out: &mut BytesMut, answer: &Result<Welcome, Refusal>) {
    greet(out, |body| match answer {
        Ok(welcome) => {
            body.put_slice(&[0, welcome.version, welcome.compression.code()]);
            body.put_u16_le(welcome.shard);
            body.put_u16_le(welcome.shard_count);
            body.put_slice(welcome.host.0.as_bytes());
            put_text(body, "");
        }
        Err(refusal) => {
            body.put_slice(&[refusal.kind.code(), LINK_VERSION, 0]);
            body.put_u32_le(0);
            body.put_slice(refusal.host.0.as_bytes());
            put_text(body, &refusal.reason);
        }
    });
}

/// Takes a hello from the front of `input`; None while it is not there in full.
///
/// # Errors
/// When the bytes are no hello.
pub fn take_hello(input: &mut BytesMut) -> Result<Option<Hello>, GreetingError> {
    let Some(body) = take_body(input)? else {
        return Ok(None);
    };
    let mut body = Fields(&body);
    let (oldest, newest) = (body.u8("versions")?, body.u8("versions")?);
    if oldest > LINK_VERSION {
        // Nothing more is sure; the versions are what matters.
        return Ok(Some(unknown_hello(oldest, newest)));
    }
    let channel = body.u8("channel")?;
    let channel = Channel::ALL.into_iter().find(|own| own.code() == channel);
    let channel = channel.ok_or(GreetingError::Malformed("channel"))?;
    // What a later version may offer is declined, not refused.
    let compression = Compression::from_code(body.u8("compression")?).unwrap_or_default();
    let (shard, shard_count) = (body.u16("shard")?, body.u16("shards")?);
    if shard >= shard_count {
        return Err(GreetingError::Malformed("shard"));
    }
    let host = body.host("host")?;
    let wanted = Some(body.host("wanted host")?).filter(|wanted| !wanted.0.is_nil());
    let ip: IpAddr = match body.u8("address")? {
        4 => body.array::<4>("address")?.into(),
        6 => body.array::<16>("address")?.into(),
        _ => return Err(GreetingError::Malformed("address")),
    };
    let address = SocketAddr::new(ip, body.u16("port")?);
    let cluster = body.text("cluster name")?;
    Ok(Some(Hello {
        oldest,
        newest,
        channel,
        compression,
        shard,
        shard_count,
        host,
        wanted,
        address,
        cluster,
    }))
}

/// Takes an answer from the front of `input`; None while it is not there in full.
///
/// # Errors
/// When the bytes are no answer.
pub fn take_answer(input: &mut BytesMut) -> Result<Option<Result<Welcome, Refusal>>, GreetingError> {
    let Some(body) = take_body(input)? else {
        return Ok(None);
    };
    let mut body = Fields(&body);
    let (code, version) = (body.u8("code")?, body.u8("version")?);
    let compression = body.u8("compression")?;
    let (shard, shard_count) = (body.u16("shard")?, body.u16("shards")?);
    let host = body.host("host")?;
    let reason = body.text("reason")?;
    if code != 0 {
        let kind = RefusalKind::ALL.into_iter().find(|kind| kind.code() == code);
        let kind = kind.unwrap_or(RefusalKind::Unknown);
        return Ok(Some(Err(Refusal { kind, host, reason })));
    }
    if !(LINK_VERSION_OLDEST..=LINK_VERSION).contains(&version) {
        return Err(GreetingError::Malformed("version"));
    }
    let compression = Compression::from_code(compression).ok_or(GreetingError::Malformed("compression"))?;
    if shard >= shard_count {
        return Err(GreetingError::Malformed("shard"));
    }
    Ok(Some(Ok(Welcome {
        version,
        compression,
        shard,
        shard_count,
        host,
    })))
}

/// Of a later version: only its versions are known.
fn unknown_hello(oldest: u8, newest: u8) -> Hello {
    Hello {
        oldest,
        newest,
        channel: Channel::Control,
        compression: Compression::None,
        shard: 0,
        shard_count: 1,
        host: HostId(Uuid::nil()),
        wanted: None,
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        cluster: String::new(),
    }
}

fn greet(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let mut body = BytesMut::new();
    fill(&mut body);
    out.put_slice(&MAGIC);
    out.put_u16_le(body.len() as u16);
    out.put_slice(&body);
    out.put_u32_le(crc32fast::hash(&body));
}

fn take_body(input: &mut BytesMut) -> Result<Option<BytesMut>, GreetingError> {
    let known = input.len().min(MAGIC.len());
    if input[..known] != MAGIC[..known] {
        return Err(GreetingError::Magic);
    }
    let Some((head, _)) = input.split_first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
    if length > BODY_MAX {
        return Err(GreetingError::TooLong);
    }
    if input.len() < HEAD + length + TAIL {
        return Ok(None);
    }
    input.advance(HEAD);
    let body = input.split_to(length);
    if input.get_u32_le() != crc32fast::hash(&body) {
        return Err(GreetingError::Checksum);
    }
    Ok(Some(body))
}

/// The text as it fits into a greeting.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn put_text(out: &mut BytesMut, text: &str) {
    let text = cut(text);
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

/// Fields of a body that may end too early.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], GreetingError> {
        let (first, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(GreetingError::Malformed(field))?;
        self.0 = rest;
        Ok(*first)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, GreetingError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, GreetingError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn host(&mut self, field: &'static str) -> Result<HostId, GreetingError> {
        self.array(field).map(|bytes| HostId(Uuid::from_bytes(bytes)))
    }

    fn text(&mut self, field: &'static str) -> Result<String, GreetingError> {
        let length = usize::from(self.u8(field)?);
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(GreetingError::Malformed(field))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| GreetingError::Malformed(field))
    }
}

#[cfg(test)]
mod tests;
