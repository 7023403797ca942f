//! `RequestRedirect`, `URLRewrite` and `RequestMirror`: where a request goes instead, or as well.

use gateway_api::experimental::httproutes::{
    HttpRouteRulesFiltersRequestMirror, HttpRouteRulesFiltersRequestRedirect,
    HttpRouteRulesFiltersRequestRedirectPath, HttpRouteRulesFiltersRequestRedirectPathType as PathType,
    HttpRouteRulesFiltersRequestRedirectScheme, HttpRouteRulesFiltersUrlRewrite,
};
use model::filter::{Filter, Fraction, Mirror, PathChange, Redirect, Rewrite, Scheme, precise_hostname};
use model::route::{PathMatch, RequestMatch};
use model::{FieldError, Label};

use super::super::check::At;
use super::super::route::same_shape;
use super::{Written, target};
use crate::sources::object::BackendTarget;

pub(super) fn redirect(
    at: &At<'_>,
    matches: &[RequestMatch],
    redirect: HttpRouteRulesFiltersRequestRedirect,
) -> Option<Redirect> {
    let code = redirect.status_code.unwrap_or(Redirect::DEFAULT_STATUS.into());
    let status = u16::try_from(code).unwrap_or_default();
    let status = Redirect::status(status)
        .map_err(|_| FieldError::new(format!("{code} is no redirect (301, 302, 303, 307 or 308)")));
    let status = at.field("statusCode").keep(status);
    let hostname = optional(redirect.hostname, |name| {
        at.field("hostname").keep(precise_hostname(&name))
    });
    let path = optional(redirect.path, |path| {
        path_change(&at.field("path"), matches, path)
    });
    let port = optional(redirect.port, |port| at.field("port").port(port));
    Some(Redirect {
        scheme: redirect.scheme.map(|scheme| match scheme {
            HttpRouteRulesFiltersRequestRedirectScheme::Http => Scheme::Http,
            HttpRouteRulesFiltersRequestRedirectScheme::Https => Scheme::Https,
        }),
        hostname: hostname?,
        path: path?,
        port: port?,
        status: status?,
    })
}

pub(super) fn rewrite(
    at: &At<'_>,
    matches: &[RequestMatch],
    rewrite: HttpRouteRulesFiltersUrlRewrite,
) -> Option<Rewrite> {
    let hostname = optional(rewrite.hostname, |name| {
        at.field("hostname").keep(precise_hostname(&name))
    });
    let path = optional(rewrite.path, |path| {
        let at = at.field("path");
        path_change(&at, matches, same_shape(&at, path)?)
    });
    Some(Rewrite {
        hostname: hostname?,
        path: path?,
    })
}

pub(super) fn mirror(
    at: &At<'_>,
    own: &Label,
    mirror: HttpRouteRulesFiltersRequestMirror,
) -> Option<Written> {
    let share = match (mirror.percent, mirror.fraction) {
        (None, None) => Some(Fraction::ALL),
        (Some(percent), None) => {
            let at = at.field("percent");
            let percent = u32::try_from(percent).ok().filter(|percent| *percent <= 100);
            let percent = percent.ok_or_else(|| FieldError::new("is not 0-100"));
            at.keep(percent)
                .and_then(|percent| at.keep(Fraction::new(percent, 100)))
        }
        (None, Some(fraction)) => {
            let at = at.field("fraction");
            let count = |name: &str, count: i32| {
                let why = |_| FieldError::new(format!("{count} is negative"));
                at.field(name).keep(u32::try_from(count).map_err(why))
            };
            let numerator = count("numerator", fraction.numerator);
            let denominator = match fraction.denominator {
                Some(denominator) => count("denominator", denominator),
                None => Some(Fraction::DEFAULT_DENOMINATOR),
            };
            at.keep(Fraction::new(numerator?, denominator?))
        }
        (Some(_), Some(_)) => {
            at.field("percent").refuse("cannot stand beside fraction");
            None
        }
    };
    let target = target(at, own, mirror.backend_ref);
    let share = share?;
    Some(match target? {
        BackendTarget::Service(target) => Written::Filter(Filter::Mirror(Mirror { target, share })),
        BackendTarget::Unknown(named) => Written::LostMirror(named),
    })
}

/// `at` is the modifier of the path.
fn path_change(
    at: &At<'_>,
    matches: &[RequestMatch],
    path: HttpRouteRulesFiltersRequestRedirectPath,
) -> Option<PathChange> {
    let (full, prefix) = (path.replace_full_path, path.replace_prefix_match);
    let (wanted, given, other, is_other_given) = match path.r#type {
        PathType::ReplaceFullPath => ("replaceFullPath", full, "replacePrefixMatch", prefix.is_some()),
        PathType::ReplacePrefixMatch => ("replacePrefixMatch", prefix, "replaceFullPath", full.is_some()),
    };
    if is_other_given {
        at.field(other).refuse("is not what the path's type says");
    }
    let Some(replacement) = given else {
        at.refuse(format!("{wanted} is missing, which the path's type asks for"));
        return None;
    };
    if path.r#type == PathType::ReplaceFullPath {
        return at.field(wanted).usable(PathChange::full(&replacement));
    }
    let [
        RequestMatch {
            path: matched @ PathMatch::Prefix(_),
            ..
        },
    ] = matches
    else {
        at.field("type")
            .refuse("ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix");
        return None;
    };
    at.field(wanted).usable(PathChange::prefix(matched, &replacement))
}

/// `Some(None)` where it is not given, `None` where it was refused.
fn optional<T, R>(given: Option<T>, read: impl FnOnce(T) -> Option<R>) -> Option<Option<R>> {
    match given {
        Some(given) => read(given).map(Some),
        None => Some(None),
    }
}
