//! One end of a connection between two nodes: greeting, answer, then frames both ways.
//!
//! ```text
//!   dialling end:   says hello --welcome--> open
//!                               `-refusal--> ends
//!   accepting end:  hears hello --judged well--> says welcome, open
//!                               `-judged ill---> says why, ends
//! ```
//!
//! Bytes go in by [`Link::received`], what they mean comes out of [`Link::next`], bytes for the other end go to the buffer
//! that is given. Never: a frame before the greetings are over, anything after an error.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::frame::{Compression, FrameDecoder, FrameError};
use crate::handshake::{
    GreetingError, Hello, Identity, Refusal, Welcome, put_answer, put_hello, take_answer, take_hello,
};

/// What has come over a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The other end takes the link that this end has dialled.
    Welcomed(Welcome),
    /// The other end's hello was judged well, and has been answered.
    Accepted(Box<Hello>),
    /// A frame's body.
    Frame(Bytes),
}

/// Why a link ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The other end does not take this link.
    RefusedThere(Refusal),
    /// This end does not take the link; the other end has been told why.
    RefusedHere(Box<Hello>, Refusal),
    /// The other end's greeting makes no sense.
    Greeting(GreetingError),
    /// A frame is broken.
    Frame(FrameError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedThere(refusal) => write!(f, "refused there: {refusal}"),
            Self::RefusedHere(hello, refusal) => write!(f, "refused {}: {refusal}", hello.address),
            Self::Greeting(error) => error.fmt(f),
            Self::Frame(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<GreetingError> for LinkError {
    fn from(error: GreetingError) -> Self {
        Self::Greeting(error)
    }
}

#[derive(Debug)]
enum State {
    Dialling,
    Accepting(Box<Identity>),
    Open(FrameDecoder),
    Ended,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Link {
    state: State,
    input: BytesMut,
    compression: Compression,
}

impl Link {
    /// The end that connects. Appends what it says first.
    pub fn dial(hello: &Hello, out: &mut BytesMut) -> Link {
        put_hello(out, hello);
        Link::new(State::Dialling)
    }

    /// The end that is connected to.
    pub fn accept(identity: Identity) -> Link {
        Link::new(State::Accepting(Box::new(identity)))
    }

    fn new(state: State) -> Link {
        Link {
            state,
            input: BytesMut::new(),
            compression: Compression::None,
        }
    }

    /// What was agreed on; none before.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The greetings are over, and nothing went wrong.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Takes bytes of the other end. [`Link::next`] says what they mean.
    pub fn received(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Ended) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Bytes that have come and mean nothing yet.
    pub fn buffered(&self) -> usize {
        self.input.len()
    }

    /// The next thing that has come; None until more bytes do. Answers to the other end are appended to `out`.
    ///
    /// # Errors
    /// Once, when the link is of no use any more; None ever after.
    pub fn next(&mut self, out: &mut BytesMut) -> Result<Option<LinkEvent>, LinkError> {
        let outcome = self.advance(out);
        if outcome.is_err() {
            self.state = State::Ended;
            self.input = BytesMut::new();
        }
        outcome
    }

    fn advance(&mut self, out: &mut BytesMut) -> Result<Option<LinkEvent>, LinkError> {
        match &self.state {
            State::Ended => Ok(None),
            State::Open(decoder) => {
                let body = decoder.next(&mut self.input).map_err(LinkError::Frame)?;
                Ok(body.map(LinkEvent::Frame))
            }
            State::Dialling => match take_answer(&mut self.input)? {
                None => Ok(None),
                Some(Err(refusal)) => Err(LinkError::RefusedThere(refusal)),
                Some(Ok(welcome)) => {
                    self.open(welcome.compression);
                    Ok(Some(LinkEvent::Welcomed(welcome)))
                }
            },
            State::Accepting(identity) => {
                let Some(hello) = take_hello(&mut self.input)? else {
                    return Ok(None);
                };
                let answer = identity.judge(&hello);
                put_answer(out, &answer);
                match answer {
                    Ok(welcome) => {
                        self.open(welcome.compression);
                        Ok(Some(LinkEvent::Accepted(Box::new(hello))))
                    }
                    Err(refusal) => Err(LinkError::RefusedHere(Box::new(hello), refusal)),
                }
            }
        }
    }

    fn open(&mut self, compression: Compression) {
        self.compression = compression;
        self.state = State::Open(FrameDecoder::new(compression));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use uuid::Uuid;

    use super::*;
    use crate::frame::put_frame;
    use crate::handshake::{Channel, LINK_VERSION, LINK_VERSION_OLDEST, RefusalKind};
    use crate::message::HostId;

    fn host(at: u128) -> HostId {
        HostId(Uuid::from_u128(at))
    }

    fn identity(compression: Compression) -> Identity {
        Identity {
            host: host(2),
            cluster: "one".to_owned(),
            shard: 0,
            shard_count: 1,
            compression,
        }
    }

    fn hello(cluster: &str) -> Hello {
        Hello {
            oldest: LINK_VERSION_OLDEST,
            newest: LINK_VERSION,
            channel: Channel::Bulk,
            compression: Compression::Lz4,
            shard: 0,
            shard_count: 1,
            host: host(1),
            wanted: None,
            address: "127.0.0.1:7000".parse().unwrap(),
            cluster: cluster.to_owned(),
        }
    }

    /// Moves bytes both ways until neither end has anything to say; what each end heard.
    fn greet(cluster: &str) -> (Link, Link, Vec<Result<LinkEvent, LinkError>>) {
        let (mut to_accepting, mut to_dialling) = (BytesMut::new(), BytesMut::new());
        let mut dialling = Link::dial(&hello(cluster), &mut to_accepting);
        let mut accepting = Link::accept(identity(Compression::Lz4));
        let mut heard = Vec::new();
        while !to_accepting.is_empty() || !to_dialling.is_empty() {
            accepting.received(&to_accepting.split());
            while let Some(event) = accepting.next(&mut to_dialling).transpose() {
                heard.push(event);
            }
            dialling.received(&to_dialling.split());
            while let Some(event) = dialling.next(&mut to_accepting).transpose() {
                heard.push(event);
            }
        }
        (dialling, accepting, heard)
    }

    #[test]
    fn ends_greet_and_then_exchange_frames() {
        let (mut dialling, mut accepting, heard) = greet("one");
        assert!(dialling.is_open() && accepting.is_open());
        assert_eq!(dialling.compression(), Compression::Lz4);
        assert!(matches!(
            &heard[..],
            [Ok(LinkEvent::Accepted(hello)), Ok(LinkEvent::Welcomed(welcome))]
                if hello.host == host(1) && welcome.host == host(2)
        ));
        let mut bytes = BytesMut::new();
        assert!(put_frame(&mut bytes, &[5; 3000], dialling.compression()));
        for end in [&mut dialling, &mut accepting] {
            end.received(&bytes);
            let frame = end.next(&mut BytesMut::new()).unwrap().unwrap();
            assert_eq!(frame, LinkEvent::Frame(vec![5; 3000].into()));
            assert_eq!(end.buffered(), 0);
        }
    }

    #[test]
    fn both_ends_learn_of_a_refusal_once() {
        let (mut dialling, accepting, heard) = greet("two");
        assert!(!dialling.is_open() && !accepting.is_open());
        let [
            Err(LinkError::RefusedHere(_, here)),
            Err(LinkError::RefusedThere(there)),
        ] = &heard[..]
        else {
            panic!("{heard:?}");
        };
        assert_eq!((here, here.kind), (there, RefusalKind::OtherCluster));
        dialling.received(&[1, 2, 3]);
        assert_eq!(
            (dialling.next(&mut BytesMut::new()), dialling.buffered()),
            (Ok(None), 0)
        );
    }

    #[test]
    fn frames_before_the_greeting_are_refused() {
        let mut link = Link::accept(identity(Compression::None));
        let mut bytes = BytesMut::new();
        assert!(put_frame(&mut bytes, b"early", Compression::None));
        link.received(&bytes);
        let error = link.next(&mut BytesMut::new()).unwrap_err();
        assert_eq!(error, LinkError::Greeting(GreetingError::Magic));
    }
}
