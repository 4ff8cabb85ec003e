//! What every call to the API server passes: a look at its path on the way out, a deadline, and on the
//! way back the removal of content from refusals.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use axum::body::HttpBody;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use kube::client::Body;
use thiserror::Error;
use tower::{BoxError, Layer, Service};

use super::refusal;

/// A call that was given up.
#[derive(Debug, Error)]
#[error("the API server did not answer within {0:?}")]
pub struct NotInTime(Duration);

/// A call that is not made, because a name in it would make another call of it.
#[derive(Debug, Error)]
#[error("a name that cannot be one was about to become part of a path; the call was not made")]
pub struct NotMeant;

/// An answer that is not read to its end.
#[derive(Debug, Error)]
#[error("the API server's answer is larger than {0} bytes")]
pub struct TooLarge(usize);

/// Gives every call a deadline and every answer a largest size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guard {
    pub(super) deadline: Duration,
    pub(super) largest: usize,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: *self }
    }
}

pub(super) struct Guarded<S> {
    inner: S,
    guard: Guard,
}

type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

impl<S, B> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Guard { deadline, largest } = self.guard;
        let kind = Kind::of(&request);
        if !is_meant(kind, request.uri()) {
            return std::future::ready(Err(NotMeant.into())).boxed();
        }
        let answered = self.inner.call(request);
        let answer = async move {
            let (mut parts, body) = answered.await.map_err(Into::into)?.into_parts();
            let refused = parts.status.is_client_error() || parts.status.is_server_error();
            if kind == Kind::Watch && !refused {
                return Ok(Response::from_parts(parts, body.map_err(Into::into).boxed_unsync()));
            }
            let read = Limited::new(body, largest).collect().await;
            let mut content = read.map_err(|error| named(error, largest))?.to_bytes();
            if refused {
                content = refusal::without_content(parts.status, &content);
                parts.headers.remove(http::header::CONTENT_LENGTH);
            }
            let body = Full::new(content).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::from_parts(parts, body))
        };
        async move {
            let in_time = tokio::time::timeout(deadline, answer).await;
            in_time.unwrap_or_else(|_| Err(NotInTime(deadline).into()))
        }
        .boxed()
    }
}

fn named(error: BoxError, largest: usize) -> BoxError {
    if error.is::<LengthLimitError>() { TooLarge(largest).into() } else { error }
}

/// What kind of call the code meant, whatever has become of its path since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One whose answer does not end.
    Watch,
    /// Of one object, without parameters.
    Get,
    Other,
}

impl Kind {
    /// kube notes the method that was called beside the request.
    fn of<B>(request: &Request<B>) -> Self {
        match request.extensions().get::<&'static str>().copied() {
            Some("watch" | "watch_metadata") => Self::Watch,
            Some("get" | "get_metadata") => Self::Get,
            _ => Self::Other,
        }
    }
}

/// kube pastes names into paths as they are. Names are parsed long before; this is the last look, for
/// all of them at one place.
fn is_meant(kind: Kind, uri: &Uri) -> bool {
    let is_name = |segment: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
    };
    let mut segments = uri.path().split('/');
    let absolute = segments.next() == Some("");
    let parameters = uri.query().is_some_and(|query| !query.is_empty());
    absolute && segments.all(is_name) && !(kind == Kind::Get && parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::object(Kind::Get, "/api/v1/namespaces/tenants/secrets/ada-keys", true)]
    #[case::list(Kind::Other, "/apis/moorage.dev/v1alpha1/openclawinstances?&limit=50", true)]
    #[case::watch(Kind::Watch, "/api/v1/namespaces/a/secrets?&watch=true", true)]
    #[case::role(Kind::Get, "/apis/x/v1/clusterroles/system:node", true)]
    #[case::parameters(Kind::Get, "/api/v1/namespaces/tenants/secrets/?limit=500", false)]
    #[case::parameters_after_a_name(Kind::Get, "/api/v1/namespaces/a/secrets/b?watch=true", false)]
    #[case::parent(Kind::Other, "/api/v1/namespaces/a/secrets/../../b/secrets/key", false)]
    #[case::encoded_parent(Kind::Other, "/api/v1/namespaces/a/secrets/%2e%2e", false)]
    #[case::no_name(Kind::Other, "/api/v1/namespaces/a/secrets/", false)]
    fn a_path_is_sent_only_if_it_is_made_of_names(
        #[case] kind: Kind,
        #[case] uri: &str,
        #[case] meant: bool,
    ) {
        assert_eq!(is_meant(kind, &uri.parse().unwrap()), meant);
    }
}
