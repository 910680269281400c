//! STARTUP and the login after it: what client and server agree on, and the switch to it.

use std::rc::Rc;

use bytes::Bytes;
use ceto_env::TaskQueue;
use ceto_native::request::Startup;
use ceto_native::{Compression, Dialect, ErrorMessage, ProtocolVersion, Response};

use super::{ConnectionState, Stage};
use crate::login::{AUTHENTICATOR, log_in};

impl ConnectionState {
    pub(super) fn start_up(&self, stream: i16, startup: &Startup) {
        if self.stage.get() != Stage::Connected {
            let text = "Unexpected message STARTUP, the connection has had one".to_owned();
            return self.protocol_error(stream, text);
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
        let (response, stage) = if self.node.options.access.requires_login {
            let authenticator = AUTHENTICATOR.to_owned();
            (Response::Authenticate { authenticator }, Stage::Authenticating)
        } else {
            (Response::Ready, Stage::Ready)
        };
        self.respond(stream, &response.into());
        self.switch_to(dialect, compression);
        self.stage.set(stage);
    }

    /// AUTH_RESPONSE. After a refusal the client may try again.
    pub(super) fn log_in(self: &Rc<Self>, stream: i16, token: Option<Bytes>) {
        self.stage.set(Stage::LoggingIn);
        let connection = self.clone();
        let login = async move {
            let outcome = log_in(&connection.node, token).await;
            if connection.is_closed() {
                return;
            }
            match outcome {
                Ok(role) => {
                    *connection.role.borrow_mut() = Some(role);
                    connection.stage.set(Stage::Ready);
                    connection.respond(stream, &Response::AuthSuccess(None).into());
                }
                Err(error) => {
                    connection.stage.set(Stage::Authenticating);
                    connection.respond(stream, &error.into());
                }
            }
        };
        let tasks = self.node.env.tasks();
        tasks.spawn(TaskQueue::Statement, Box::pin(login));
    }

    /// What STARTUP has agreed on holds from here on: its answer itself was still sent plain.
    fn switch_to(&self, dialect: Dialect, compression: Compression) {
        let mut decoder = self.decoder.borrow_mut();
        let mut encoder = self.encoder.borrow_mut();
        encoder.set_dialect(dialect);
        decoder.set_max_length(u32::try_from(self.node.settings().limits.max_frame_size).unwrap_or(u32::MAX));
        decoder.set_compression(compression);
        encoder.set_compression(compression);
        if dialect.version >= ProtocolVersion::V5 {
            decoder.start_framing();
            encoder.start_framing();
        }
    }
}
