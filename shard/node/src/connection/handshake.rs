//! STARTUP: what client and server agree on, and the switch to it.

use ceto_native::request::Startup;
use ceto_native::{Compression, Dialect, ErrorMessage, ProtocolVersion, Response};

use super::{ConnectionState, Stage};

impl ConnectionState {
    pub(super) fn start_up(&self, stream: i16, startup: &Startup) {
        if self.stage.get() == Stage::Ready {
            return self.protocol_error(
                stream,
                "Unexpected message STARTUP, the connection is ready".to_owned(),
            );
        }
        let Some(version) = startup.option("CQL_VERSION") else {
            return self.protocol_error(stream, "Missing value CQL_VERSION in STARTUP message".to_owned());
        };
        // Greater ones are fine: the Rust driver asks for 4.0.0.
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < 3) {
            return self.protocol_error(
                stream,
                format!("CQL version {version} is not supported by the binary protocol (supported versions are >= 3.0.0)"),
            );
        }
        let dialect = self.dialect();
        let compression = match startup.compression(dialect.version) {
            Ok(compression) => compression,
            Err(violation) => return self.respond(stream, &ErrorMessage::from(&violation).into()),
        };
        let mut dialect = dialect;
        self.throws_on_overload
            .set(startup.option("THROW_ON_OVERLOAD") == Some("1"));
        dialect.extensions.lwt_mark = startup.option("SCYLLA_LWT_ADD_METADATA_MARK").is_some();
        dialect.extensions.metadata_id = startup.option("SCYLLA_USE_METADATA_ID").is_some();
        *self.startup.borrow_mut() = startup.options.iter().cloned().collect();
        self.respond(stream, &Response::Ready.into());
        self.switch_to(dialect, compression);
        self.stage.set(Stage::Ready);
    }

    /// What STARTUP has agreed on holds from here on: READY itself was still sent plain.
    fn switch_to(&self, dialect: Dialect, compression: Compression) {
        let mut decoder = self.decoder.borrow_mut();
        let mut encoder = self.encoder.borrow_mut();
        encoder.set_dialect(dialect);
        decoder.set_max_length(u32::try_from(self.node.options.limits.max_frame_size).unwrap_or(u32::MAX));
        decoder.set_compression(compression);
        encoder.set_compression(compression);
        if dialect.version >= ProtocolVersion::V5 {
            decoder.start_framing();
            encoder.start_framing();
        }
    }
}
