//! What an error of Pingora's means: whose fault it is, what to say about it, and to whom.

use pingora::{Error, ErrorSource, ErrorType};

use crate::context::Context;
use crate::outage::Loss;
use crate::respond::Rejection;
use crate::sentence::sentence;
use crate::telemetry::access_log::Fault;

/// Returns whose fault an error is.
pub(super) fn fault(error: &Error) -> Fault {
    match error.esource() {
        ErrorSource::Downstream => Fault::Downstream,
        ErrorSource::Upstream => Fault::Upstream,
        ErrorSource::Internal | ErrorSource::Unset => Fault::Internal,
    }
}

/// Returns what an error that came before an answer says of the upstream, if it says anything.
pub(super) fn loss(error: &Error) -> Option<Loss> {
    match rejection(error, fault(error))? {
        Rejection::UpstreamUnreachable => Some(Loss::Unreachable),
        Rejection::UpstreamFailed | Rejection::UpstreamTimeout => Some(Loss::Unanswered),
        _ => None,
    }
}

/// Returns whether the client went away: its connection's end, or over HTTP/2 its stream's.
pub(super) fn is_goodbye(error: &Error) -> bool {
    let fault = fault(error);
    fault == Fault::Downstream && rejection(error, fault).is_none()
}

/// Says what went wrong in a sentence, and where, if it went wrong upstream.
pub(super) fn cause(error: &Error, ctx: &Context) -> String {
    let upstream = ctx.site.as_ref().map(|site| &site.upstream);
    let upstream = upstream.filter(|_| fault(error) == Fault::Upstream);
    let peer = upstream.and_then(|upstream| upstream.tried(ctx.attempt.turn, ctx.attempt.tries));
    sentence(error, peer.as_deref())
}

/// Returns what the client is told of an error, if it is still there to be told.
pub(super) fn rejection(error: &Error, fault: Fault) -> Option<Rejection> {
    use ErrorType as T;
    Some(match (fault, error.etype()) {
        (Fault::Downstream, T::ReadTimedout) => Rejection::Timeout,
        (
            Fault::Downstream,
            T::ConnectionClosed | T::ReadError | T::WriteError | T::WriteTimedout | T::H2Error,
        ) => {
            return None;
        }
        (Fault::Downstream, _) => Rejection::BadRequest,
        (
            Fault::Upstream,
            T::ConnectTimedout
            | T::ConnectRefused
            | T::ConnectNoRoute
            | T::ConnectError
            | T::BindError
            | T::SocketError,
        ) => Rejection::UpstreamUnreachable,
        (Fault::Upstream, T::ReadTimedout | T::WriteTimedout) => Rejection::UpstreamTimeout,
        (Fault::Upstream, _) => Rejection::UpstreamFailed,
        (Fault::Internal, _) => Rejection::Internal,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn error(kind: ErrorType, source: ErrorSource) -> Box<Error> {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        let mut error = Error::because(kind, "peer: secret-of-the-peer", cause);
        error.esource = source;
        error
    }

    #[test]
    fn each_failure_has_its_fault_and_its_answer() {
        use ErrorSource::{Downstream, Internal, Unset, Upstream};
        use ErrorType as T;
        for (kind, source, expected_fault, expected) in [
            (
                T::ConnectRefused,
                Upstream,
                Fault::Upstream,
                Some(Rejection::UpstreamUnreachable),
            ),
            (
                T::ConnectTimedout,
                Upstream,
                Fault::Upstream,
                Some(Rejection::UpstreamUnreachable),
            ),
            (
                T::ReadTimedout,
                Upstream,
                Fault::Upstream,
                Some(Rejection::UpstreamTimeout),
            ),
            (
                T::ConnectionClosed,
                Upstream,
                Fault::Upstream,
                Some(Rejection::UpstreamFailed),
            ),
            (
                T::InvalidHTTPHeader,
                Upstream,
                Fault::Upstream,
                Some(Rejection::UpstreamFailed),
            ),
            (
                T::ReadTimedout,
                Downstream,
                Fault::Downstream,
                Some(Rejection::Timeout),
            ),
            (
                T::InvalidHTTPHeader,
                Downstream,
                Fault::Downstream,
                Some(Rejection::BadRequest),
            ),
            (T::ConnectionClosed, Downstream, Fault::Downstream, None),
            (T::WriteError, Downstream, Fault::Downstream, None),
            (
                T::InternalError,
                Internal,
                Fault::Internal,
                Some(Rejection::Internal),
            ),
            (
                T::InternalError,
                Unset,
                Fault::Internal,
                Some(Rejection::Internal),
            ),
        ] {
            let error = error(kind, source);
            let fault = fault(&error);
            assert_eq!(fault, expected_fault, "{error}");
            assert_eq!(rejection(&error, fault), expected, "{error}");
        }
    }
}
