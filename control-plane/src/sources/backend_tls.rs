//! `BackendTLSPolicy`: by which TLS a Service outside the mesh is called.

use gateway_api::backendtlspolicies as api;
use model::gateway::SubjectAltName;
use model::{FieldError, Hostname};

use super::check::{At, Distinct, key};
use super::kind::{Kind, ObjectKey, ObjectName};
use super::reference::{ObjectRef, core_is_empty, reference};

// Gateway API's own limits.
const MAX_TARGETS: usize = 16;
const MAX_AUTHORITIES: usize = 8;
const MAX_NAMES: usize = 5;
const MAX_OPTIONS: usize = 16;
const MAX_URI_BYTES: usize = 253;

/// How calls to some Services are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    pub key: ObjectKey,
    /// Never empty.
    pub targets: Vec<PolicyTarget>,
    pub trusts: Trusts,
    /// Never a wildcard.
    pub hostname: Hostname,
    pub names: Vec<SubjectAltName>,
}

/// What a policy is for, in its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyTarget {
    /// Empty for the core group.
    pub group: String,
    pub kind: String,
    pub name: ObjectName,
    /// A port by its name.
    pub section: Option<String>,
}

/// Which authorities may have signed the backend's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trusts {
    /// Never empty.
    Authorities(Vec<ObjectRef>),
    /// `wellKnownCACertificates: System`.
    System,
    /// A well-known set of another implementation.
    Unknown(String),
}

pub(super) fn policy(at: &At<'_>, policy: api::BackendTlsPolicy) -> Option<BackendTlsPolicy> {
    let key = key(at, Kind::BackendTlsPolicy, &policy.metadata)?;
    let (at, spec) = (at.field("spec"), policy.spec);
    if spec.options.is_some_and(|options| options.len() > MAX_OPTIONS) {
        at.field("options")
            .refuse(format!("has over {MAX_OPTIONS} entries"));
    }
    let targets = targets(&at, spec.target_refs);
    let (at, validation) = (at.field("validation"), spec.validation);
    let hostname = at.field("hostname").keep(precise(&validation.hostname));
    let names = at
        .field("subjectAltNames")
        .items(validation.subject_alt_names, MAX_NAMES);
    let names = names.into_iter().filter_map(|(at, name)| at.keep(alt_name(name)));
    let names = names.collect();
    let given = validation.ca_certificate_refs;
    let given = at.field("caCertificateRefs").items(given, MAX_AUTHORITIES);
    let well_known = validation
        .well_known_ca_certificates
        .filter(|name| !name.is_empty());
    let trusts = match (given.is_empty(), well_known) {
        (false, Some(_)) => {
            at.refuse("caCertificateRefs and wellKnownCACertificates are both given");
            None
        }
        (true, None) => {
            at.refuse("caCertificateRefs or wellKnownCACertificates is given");
            None
        }
        (true, Some(name)) => at.field("wellKnownCACertificates").keep(well_known_set(name)),
        (false, None) => {
            let references = given.into_iter().filter_map(|(at, given)| {
                let (group, kind) = (Some(given.group.as_str()), Some(given.kind.as_str()));
                reference(&at, &key.namespace, group, kind, None, &given.name)
            });
            Some(Trusts::Authorities(references.collect()))
        }
    };
    Some(BackendTlsPolicy {
        key,
        targets,
        trusts: trusts?,
        hostname: hostname?,
        names,
    })
}

fn targets(at: &At<'_>, list: Vec<api::BackendTlsPolicyTargetRefs>) -> Vec<PolicyTarget> {
    let at = at.field("targetRefs");
    if list.is_empty() {
        at.refuse("has at least one entry");
    }
    let mut distinct = Distinct::new();
    let mut targets: Vec<PolicyTarget> = Vec::with_capacity(list.len());
    for (index, (at, given)) in at.items(Some(list), MAX_TARGETS).into_iter().enumerate() {
        let Some(name) = at.field("name").keep(given.name.parse()) else {
            continue;
        };
        let target = PolicyTarget {
            group: core_is_empty(&given.group).to_owned(),
            kind: given.kind,
            name,
            section: given.section_name.filter(|section| !section.is_empty()),
        };
        distinct.check(&at, index, target.clone());
        let same = |other: &&PolicyTarget| {
            (&other.group, &other.kind, &other.name) == (&target.group, &target.kind, &target.name)
        };
        let differs = targets
            .iter()
            .find(same)
            .is_some_and(|other| other.section.is_some() != target.section.is_some());
        if differs {
            at.refuse("sectionName is given in all references to one target, or in none");
        }
        targets.push(target);
    }
    targets
}

fn precise(text: &str) -> Result<Hostname, FieldError> {
    match text.parse()? {
        name @ Hostname::Exact(_) => Ok(name),
        _ => Err(FieldError::new(format!(
            "{text:?} is one host's name, without a wildcard"
        ))),
    }
}

fn alt_name(given: api::BackendTlsPolicyValidationSubjectAltNames) -> Result<SubjectAltName, FieldError> {
    use api::BackendTlsPolicyValidationSubjectAltNamesType as Type;
    let given_text = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (given.r#type, given_text(given.hostname), given_text(given.uri)) {
        (Type::Hostname, Some(name), None) => {
            let name = name
                .parse()
                .map_err(|error: FieldError| error.within("hostname"))?;
            Ok(SubjectAltName::Hostname(name))
        }
        (Type::Uri, None, Some(uri)) if is_uri(&uri) => Ok(SubjectAltName::Uri(uri)),
        (Type::Uri, None, Some(uri)) => Err(FieldError::at(
            "uri",
            format!("{uri:?} is not a URI (scheme:rest, at most {MAX_URI_BYTES} bytes)"),
        )),
        (Type::Hostname, None, _) => Err(FieldError::new("hostname is missing, which the type asks for")),
        (Type::Uri, _, None) => Err(FieldError::new("uri is missing, which the type asks for")),
        (Type::Hostname, _, Some(_)) => Err(FieldError::at("uri", "is not what the type says")),
        (Type::Uri, Some(_), _) => Err(FieldError::at("hostname", "is not what the type says")),
    }
}

/// `^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?` (Gateway API `AbsoluteURI`).
fn is_uri(text: &str) -> bool {
    text.len() <= MAX_URI_BYTES
        && text
            .split_once("://")
            .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains([':', '/', '?', '#']))
}

fn well_known_set(name: String) -> Result<Trusts, FieldError> {
    if name == "System" {
        return Ok(Trusts::System);
    }
    let is_prefixed = name.split_once('/').is_some_and(|(domain, rest)| {
        domain.parse::<ObjectName>().is_ok() && !rest.is_empty() && rest.len() <= 63
    });
    match is_prefixed {
        true => Ok(Trusts::Unknown(name)),
        false => Err(FieldError::new(format!("{name:?} is not known (System)"))),
    }
}
