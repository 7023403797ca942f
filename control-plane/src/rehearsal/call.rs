//! A request as an operator describes it: method, URL, header fields, and who sends it.

use std::fmt;
use std::str::FromStr;

use decision::Reason;
use decision::message::{MessageLimits, request};
use decision::traffic::route::RequestView;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use model::{FieldError, Label, ServiceName};

use crate::sources::DEFAULT_NAMESPACE;

/// A request that can be rehearsed.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    /// With scheme, host and path.
    pub url: Uri,
    pub headers: HeaderMap,
    pub from: Caller,
    /// The Gateway that it comes through, from outside the mesh; then nobody sends it.
    pub gateway: Option<ServiceName>,
}

/// The workload that sends a request: its namespace is where names without one are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub namespace: Label,
    /// `None`: any workload of the namespace.
    pub service: Option<Label>,
}

impl Call {
    /// Reads a method and a URL; one without a scheme is `http`.
    ///
    /// # Errors
    /// At `method` or `url`.
    pub fn new(method: &str, url: &str, from: Caller) -> Result<Self, FieldError> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| FieldError::at("method", format!("{method:?} is not a method")))?;
        let bad = || FieldError::at("url", format!("{url:?} is not http://host/path"));
        let whole = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let url: Uri = whole.parse().map_err(|_| bad())?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        if !is_http || url.host().is_none_or(str::is_empty) {
            return Err(bad());
        }
        Ok(Self {
            method,
            url,
            headers: HeaderMap::new(),
            from,
            gateway: None,
        })
    }

    /// Has it come through a gateway: `namespace/name`, or the name of one in the namespace `default`.
    ///
    /// # Errors
    /// What is no such name.
    pub fn through(&mut self, gateway: &str) -> Result<(), FieldError> {
        let name = match gateway.contains('/') {
            true => gateway.parse(),
            false => format!("{DEFAULT_NAMESPACE}/{gateway}").parse(),
        };
        self.gateway = Some(name?);
        Ok(())
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// What is no header field; and Host, which is the URL's.
    pub fn add_header(&mut self, name: &str, value: &str) -> Result<(), FieldError> {
        let parsed = HeaderName::try_from(name)
            .map_err(|_| FieldError::new(format!("{name:?} is not a header's name")))?;
        if parsed == HOST {
            return Err(FieldError::new("Host is the host of the URL; write it there"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| FieldError::new(format!("{value:?} is not a header's value")))?;
        self.headers.append(parsed, value);
        Ok(())
    }

    /// Whom the request is for, once the validator that every request passes in a proxy has accepted it.
    pub(super) fn authority(&self) -> Result<&str, Reason> {
        let head = request::http2(&self.method, &self.url, &self.headers);
        request::validate(head, &MessageLimits::default()).map(|accepted| accepted.authority)
    }

    pub(super) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            path: self.url.path(),
            query: self.url.query(),
            headers: &self.headers,
        }
    }
}

/// Written `GET http://cart/`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl FromStr for Caller {
    type Err = FieldError;

    /// Reads `namespace/service`, `namespace/`, or `service`, which is one of the namespace `default`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let (namespace, service) = text.split_once('/').unwrap_or((DEFAULT_NAMESPACE, text));
        let service = (!service.is_empty()).then(|| service.parse());
        Ok(Self {
            namespace: namespace.parse()?,
            service: service.transpose()?,
        })
    }
}

/// Written as it is read.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.namespace)?;
        self.service
            .as_ref()
            .map_or(Ok(()), |service| write!(f, "{service}"))
    }
}
