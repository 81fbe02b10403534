//! One table of routes: what is checked, what is called and what is documented come from the same row.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;
use axum::response::Response;
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};

use super::call::Call;
use crate::errors::{ApiError, Kind};

/// What a handler returns.
pub(crate) type Answer = Result<Response, ApiError>;
type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody, without a credential.
    Public,
    /// Whoever authenticates; anonymous callers where configured.
    Principal,
    /// As `Principal`, and `?token=` is accepted.
    PrincipalOrQueryToken,
}

/// How long the answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A read: when it takes too long, nothing happened.
    Read,
    /// A write: when it takes too long, it may have happened.
    Write,
    /// As long as its client stays (streams).
    Open,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A segment of the path.
    Path,
    /// The query.
    Query,
    /// A header.
    Header,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A feed's name.
    Feed,
    /// Feeds' names, the parameter given once for each.
    Feeds,
    /// A user's name.
    Uid,
    /// A user's name, or `me`.
    UidOrMe,
    /// A reaction key.
    Reaction,
    /// A whole number of these bounds.
    Int(i64, i64),
    /// `true` or `false`.
    Bool,
    /// Text of at most so many bytes.
    Text(usize),
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) place: Place,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

impl Param {
    pub(crate) const fn path(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, place: Place::Path, shape, required: true, about }
    }

    pub(crate) const fn query(name: &'static str, shape: Shape, about: &'static str) -> Self {
        Self { name, place: Place::Query, shape, required: false, about }
    }
}

/// The feed of a path.
pub(crate) const FEED: Param =
    Param::path("feed", Shape::Feed, "The feed's name as one percent-encoded segment.");
/// The place of a path.
pub(crate) const SEQ: Param =
    Param::path("seq_id", Shape::Int(0, super::wire::names::WHOLE_MAX as i64), "The place in the feed.");
/// The member of a path.
pub(crate) const UID: Param = Param::path("uid", Shape::Uid, "The user's name, percent-encoded.");
/// Size of a page.
pub(crate) const LIMIT: Param = Param::query("limit", Shape::Int(1, 1000), "Size of a page; 50 when absent.");
/// Where a page begins.
pub(crate) const CURSOR: Param =
    Param::query("cursor", Shape::Text(4096), "`next` of the page before; from the start when absent.");

/// One documented answer.
#[derive(Clone)]
pub(crate) struct Documented {
    pub(crate) status: u16,
    pub(crate) about: &'static str,
    /// Media type and the schema's name, `None` when it has no body.
    pub(crate) body: Option<(&'static str, Value)>,
}

/// The body a route takes.
#[derive(Debug, Clone)]
pub(crate) struct BodyOf {
    /// The schema's name.
    pub(crate) schema: String,
    /// Whether an absent body counts as `{}`.
    pub(crate) optional: bool,
    /// How large it may be.
    pub(crate) size: Size,
}

/// How large a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// 64 KiB: no payload in it.
    Small,
    /// One payload with its envelope.
    Payload,
    /// Many payloads.
    Batch,
}

/// One row of the table.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) id: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) about: &'static str,
    pub(crate) access: Access,
    pub(crate) pace: Pace,
    pub(crate) params: &'static [Param],
    pub(crate) body: Option<BodyOf>,
    pub(crate) answers: Vec<Documented>,
    pub(crate) errors: &'static [Kind],
    /// Whether its errors wear mqant's envelope.
    pub(crate) enveloped: bool,
    pub(crate) handler: Handler,
    pub(crate) schemas: Vec<(String, RefOr<Schema>)>,
}

impl Route {
    /// A row with nothing but its place and handler.
    pub(crate) fn new<F, Fut>(method: Method, path: &'static str, id: &'static str, handler: F) -> Self
    where
        F: Fn(Call) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let pace = if method == Method::GET { Pace::Read } else { Pace::Write };
        Self {
            method,
            path,
            id,
            tag: "",
            about: "",
            access: Access::Principal,
            pace,
            params: &[],
            body: None,
            answers: Vec::new(),
            errors: &[],
            enveloped: false,
            handler: Arc::new(move |call| Box::pin(handler(call))),
            schemas: Vec::new(),
        }
    }

    pub(crate) fn tag(mut self, tag: &'static str, about: &'static str) -> Self {
        self.tag = tag;
        self.about = about;
        self
    }

    pub(crate) fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    pub(crate) fn open_ended(mut self) -> Self {
        self.pace = Pace::Open;
        self
    }

    pub(crate) fn params(mut self, params: &'static [Param]) -> Self {
        self.params = params;
        self
    }

    pub(crate) fn takes<T: utoipa::ToSchema>(mut self, size: Size) -> Self {
        self.body = Some(BodyOf { schema: self.learn::<T>(), optional: false, size });
        self
    }

    pub(crate) fn may_take<T: utoipa::ToSchema>(mut self, size: Size) -> Self {
        self.body = Some(BodyOf { schema: self.learn::<T>(), optional: true, size });
        self
    }

    pub(crate) fn gives<T: utoipa::ToSchema>(mut self, status: u16, about: &'static str) -> Self {
        let schema = self.reference::<T>();
        self.answers.push(Documented { status, about, body: Some(("application/json", schema)) });
        self
    }

    pub(crate) fn optional_body(mut self) -> Self {
        if let Some(body) = &mut self.body {
            body.optional = true;
        }
        self
    }

    /// Answers and errors wear mqant's envelope.
    pub(crate) fn enveloped(mut self) -> Self {
        self.enveloped = true;
        self
    }

    pub(crate) fn gives_enveloped<T: utoipa::ToSchema>(mut self) -> Self {
        let result = self.reference::<T>();
        self.gives_other(200, "Done.", Some(("application/json", super::im::answer(&result))))
    }

    pub(crate) fn gives_enveloped_either<T: utoipa::ToSchema, U: utoipa::ToSchema>(mut self) -> Self {
        let result = serde_json::json!({"anyOf": [self.reference::<T>(), self.reference::<U>()]});
        self.gives_other(200, "Done.", Some(("application/json", super::im::answer(&result))))
    }

    pub(crate) fn gives_other(
        mut self,
        status: u16,
        about: &'static str,
        body: Option<(&'static str, Value)>,
    ) -> Self {
        self.answers.push(Documented { status, about, body });
        self
    }

    pub(crate) fn fails(mut self, errors: &'static [Kind]) -> Self {
        self.errors = errors;
        self
    }

    fn reference<T: utoipa::ToSchema>(&mut self) -> Value {
        serde_json::json!({"$ref": format!("#/components/schemas/{}", self.learn::<T>())})
    }

    fn learn<T: utoipa::ToSchema>(&mut self) -> String {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        name
    }

    /// An error of this route.
    pub(crate) fn refuse(&self, error: &ApiError) -> Response {
        if self.enveloped { super::im::refuse_enveloped(error) } else { super::call::refuse(error) }
    }

    /// Whether the query may carry the token.
    pub(crate) fn query_token(&self) -> bool {
        self.access == Access::PrincipalOrQueryToken
    }
}
