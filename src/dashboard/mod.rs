//! `GET /`: the dashboard, a page that shows and changes a node by the routes that anybody else has.
//!
//! Its files are in the binary and need no key, as a login page would not; all that they show does. Nothing is fetched
//! from elsewhere, and the policy that goes with the page lets a browser run nothing but these files.

mod files;
#[cfg(test)]
mod tests;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, EntityTag, Header,
    IfNoneMatch,
};
use actix_web::{HttpRequest, HttpResponse, web};

use crate::gateway::coding::{Coding, varies};
use crate::gateway::get;
use files::{File, files};

/// Scripts and styles are files of this node alone, no text is taken for markup, and no other page frames this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    for file in files() {
        get(config, file.path, move |request: HttpRequest| {
            let answer = answer(&request, file);
            async { answer }
        });
    }
}

fn answer(request: &HttpRequest, file: &'static File) -> HttpResponse {
    let coding = Coding::of(request.headers(), &[Coding::Gzip, Coding::Identity]);
    let (body, tag) = file.coded(coding);
    let is_known = is_known(request, tag);
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, tag.to_string()))
        // Asked for again each time, and answered in a few bytes: a node that was replaced shows its own page at once.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY));
    let mut response = if is_known {
        response.finish()
    } else {
        if let Some(name) = coding.name() {
            response.insert_header((CONTENT_ENCODING, name));
        }
        response.insert_header((CONTENT_TYPE, file.kind)).body(body)
    };
    varies(response.headers_mut());
    response
}

/// Has the caller this very form of it?
fn is_known(request: &HttpRequest, tag: &EntityTag) -> bool {
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(items)) => items.iter().any(|item| item.weak_eq(tag)),
        Err(_) => false,
    }
}
