//! The specification's table of endpoints (1.1, "Endpoints"): each with each status that it may answer, and each error
//! code. One row is one request; what must be there before is made by the rows above it.

use hull_image::Store;
use hull_oci::{Digest, Reference};
use hull_testkit::json;

use crate::client::{OCI, Server, directory, manifest};
use crate::images::{native, parts};

/// What a row's `{...}` stand for.
struct Words(Vec<(&'static str, String)>);

impl Words {
    fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }
}

/// Endpoint, method, target, header, body, status, code of the error.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, u16, &'static str);

const ROWS: &[Row] = &[
    ("end-1", "GET", "/v2/", "", "", 200, ""),
    ("end-1", "GET", "/v2", "", "", 200, ""),
    ("end-1", "GET", "/v3/", "", "", 404, "NAME_UNKNOWN"),
    ("end-1", "POST", "/v2/", "", "", 405, "UNSUPPORTED"),
    ("end-4a", "POST", "/v2/{name}/blobs/uploads/", "", "", 202, ""),
    ("end-4a", "POST", "/v2/{name}/blobs/uploads", "", "", 202, ""),
    ("end-4a", "POST", "/v2/BAD/blobs/uploads/", "", "", 400, "NAME_INVALID"),
    ("end-4a", "POST", "/v2/{long}/blobs/uploads/", "", "", 400, "NAME_INVALID"),
    ("end-4b", "POST", "/v2/{name}/blobs/uploads/?digest={layer}", "", "layer", 201, ""),
    ("end-4b", "POST", "/v2/{name}/blobs/uploads/?digest={config}", "", "{}", 201, ""),
    ("end-4b", "POST", "/v2/{name}/blobs/uploads/?digest={layer}", "", "other", 400, "DIGEST_INVALID"),
    ("end-4b", "POST", "/v2/{name}/blobs/uploads/?digest=sha256:00", "", "layer", 400, "DIGEST_INVALID"),
    ("end-4b", "POST", "/v2/{name}/blobs/uploads/?digest=sha1:{hex40}", "", "layer", 400, "DIGEST_INVALID"),
    ("end-4c", "POST", "/v2/{name}/blobs/uploads/?digest-algorithm=sha512", "", "", 202, ""),
    ("end-4c", "POST", "/v2/{name}/blobs/uploads/?digest-algorithm=crc", "", "", 400, "DIGEST_INVALID"),
    ("end-2", "GET", "/v2/{name}/blobs/{layer}", "", "", 200, ""),
    ("end-2", "HEAD", "/v2/{name}/blobs/{layer}", "", "", 200, ""),
    ("end-2", "GET", "/v2/{name}/blobs/{layer}", "range: bytes=1-2", "", 206, ""),
    ("end-2", "GET", "/v2/{name}/blobs/{layer}", "range: bytes=5-", "", 416, "SIZE_INVALID"),
    ("end-2", "GET", "/v2/{name}/blobs/{absent}", "", "", 404, "BLOB_UNKNOWN"),
    ("end-2", "HEAD", "/v2/{name}/blobs/{absent}", "", "", 404, ""),
    ("end-2", "GET", "/v2/{name}/blobs/sha256:00", "", "", 400, "DIGEST_INVALID"),
    ("end-2", "GET", "/v2/other/blobs/{layer}", "", "", 404, "BLOB_UNKNOWN"),
    ("end-2", "PATCH", "/v2/{name}/blobs/{layer}", "", "", 405, "UNSUPPORTED"),
    ("end-13", "GET", "{upload}", "", "", 204, ""),
    ("end-13", "GET", "/v2/{name}/blobs/uploads/{hex32}", "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("end-13", "GET", "/v2/{name}/blobs/uploads/x", "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("end-5", "PATCH", "{upload}", "content-range: 0-4", "chunk", 202, ""),
    ("end-5", "PATCH", "{upload}", "content-range: 0-4", "chunk", 416, "BLOB_UPLOAD_INVALID"),
    ("end-5", "PATCH", "{upload}", "content-range: 9-13", "chunk", 416, "BLOB_UPLOAD_INVALID"),
    ("end-5", "PATCH", "{upload}", "content-range: 5-5", "chunk", 400, "SIZE_INVALID"),
    ("end-5", "PATCH", "{upload}", "content-range: five", "chunk", 400, "BLOB_UPLOAD_INVALID"),
    ("end-5", "PATCH", "/v2/{name}/blobs/uploads/{hex32}", "", "chunk", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("end-5", "POST", "{upload}", "", "", 405, "UNSUPPORTED"),
    ("end-6", "PUT", "{upload}", "", "", 400, "DIGEST_INVALID"),
    ("end-6", "PUT", "{upload}?digest={chunks}", "content-range: 6-7", "ed", 416, "BLOB_UPLOAD_INVALID"),
    ("end-6", "PUT", "{upload}?digest={chunks}", "content-range: 5-6", "ed", 201, ""),
    ("end-6", "PUT", "{upload}?digest={chunks}", "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("end-2", "GET", "/v2/{name}/blobs/{chunks}", "", "", 200, ""),
    ("end-14", "DELETE", "{upload2}", "", "", 204, ""),
    ("end-14", "DELETE", "{upload2}", "", "", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("end-11", "POST", "/v2/other/blobs/uploads/?mount={layer}&from={name}", "", "", 201, ""),
    ("end-11", "POST", "/v2/other/blobs/uploads/?mount={config}", "", "", 201, ""),
    ("end-11", "POST", "/v2/other/blobs/uploads/?mount={absent}&from={name}", "", "", 202, ""),
    ("end-11", "POST", "/v2/other/blobs/uploads/?mount={absent}&from=../x", "", "", 400, "NAME_INVALID"),
    ("end-11", "POST", "/v2/other/blobs/uploads/?mount=sha256:x&from={name}", "", "", 400, "DIGEST_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/v1", "content-type: {oci}", "{manifest}", 201, ""),
    ("end-7", "PUT", "/v2/{name}/manifests/{digest}", "content-type: {oci}", "{manifest}", 201, ""),
    ("end-7b", "PUT", "/v2/{name}/manifests/{digest}?tag=v2&tag=v3", "content-type: {oci}", "{manifest}", 201, ""),
    ("end-7", "PUT", "/v2/{name}/manifests/{absent}", "content-type: {oci}", "{manifest}", 400, "DIGEST_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/v1", "content-type: {oci}", "{lacking}", 404, "MANIFEST_BLOB_UNKNOWN"),
    ("end-7", "PUT", "/v2/{name}/manifests/v1", "content-type: {oci}", "nonsense", 400, "MANIFEST_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/v1", "content-type: text/plain", "{manifest}", 400, "MANIFEST_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/-v1", "content-type: {oci}", "{manifest}", 400, "MANIFEST_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/{tag129}", "content-type: {oci}", "{manifest}", 400, "MANIFEST_INVALID"),
    ("end-7", "PUT", "/v2/BAD/manifests/v1", "content-type: {oci}", "{manifest}", 400, "NAME_INVALID"),
    ("end-7", "PUT", "/v2/{name}/manifests/v1", "content-type: {oci}", "{large}", 413, "MANIFEST_INVALID"),
    ("end-7", "POST", "/v2/{name}/manifests/v1", "content-type: {oci}", "{manifest}", 405, "UNSUPPORTED"),
    ("end-3", "GET", "/v2/{name}/manifests/v1", "", "", 200, ""),
    ("end-3", "HEAD", "/v2/{name}/manifests/v2", "", "", 200, ""),
    ("end-3", "GET", "/v2/{name}/manifests/{digest}", "", "", 200, ""),
    ("end-3", "GET", "/v2/{name}/manifests/v9", "", "", 404, "MANIFEST_UNKNOWN"),
    ("end-3", "HEAD", "/v2/{name}/manifests/v9", "", "", 404, ""),
    ("end-3", "GET", "/v2/{name}/manifests/{absent}", "", "", 404, "MANIFEST_UNKNOWN"),
    ("end-3", "GET", "/v2/nobody/manifests/v1", "", "", 404, "NAME_UNKNOWN"),
    ("end-3", "GET", "/v2/{name}/manifests/v 1", "", "", 400, ""),
    ("end-8a", "GET", "/v2/{name}/tags/list", "", "", 200, ""),
    ("end-8a", "GET", "/v2/nobody/tags/list", "", "", 404, "NAME_UNKNOWN"),
    ("end-8b", "GET", "/v2/{name}/tags/list?n=1&last=v1", "", "", 200, ""),
    ("end-8b", "GET", "/v2/{name}/tags/list?n=-1", "", "", 400, "PAGINATION_NUMBER_INVALID"),
    ("end-8a", "DELETE", "/v2/{name}/tags/list", "", "", 405, "UNSUPPORTED"),
    ("catalog", "GET", "/v2/_catalog?n=1", "", "", 200, ""),
    ("end-12a", "GET", "/v2/{name}/referrers/{digest}", "", "", 200, ""),
    ("end-12a", "GET", "/v2/nobody/referrers/{absent}", "", "", 200, ""),
    ("end-12a", "GET", "/v2/{name}/referrers/sha256:00", "", "", 400, "DIGEST_INVALID"),
    ("end-12b", "GET", "/v2/{name}/referrers/{digest}?artifactType=text/x", "", "", 200, ""),
    ("end-12a", "PUT", "/v2/{name}/referrers/{digest}", "", "", 405, "UNSUPPORTED"),
    ("end-9", "DELETE", "/v2/{name}/manifests/v2", "", "", 202, ""),
    ("end-9", "DELETE", "/v2/{name}/manifests/v2", "", "", 404, "MANIFEST_UNKNOWN"),
    ("end-9", "DELETE", "/v2/{name}/manifests/{digest}", "", "", 202, ""),
    ("end-9", "DELETE", "/v2/{name}/manifests/{digest}", "", "", 404, "MANIFEST_UNKNOWN"),
    ("end-9", "DELETE", "/v2/nobody/manifests/v1", "", "", 404, "NAME_UNKNOWN"),
    ("end-10", "DELETE", "/v2/{name}/blobs/{layer}", "", "", 202, ""),
    ("end-10", "DELETE", "/v2/{name}/blobs/{layer}", "", "", 404, "BLOB_UNKNOWN"),
    ("end-10", "DELETE", "/v2/{name}/blobs/sha256:00", "", "", 400, "DIGEST_INVALID"),
];

fn answers(server: &Server) {
    let value = manifest("{}", "layer");
    let bytes = value.to_string();
    let mut large = value;
    large["annotations"] = json!({"x": "y".repeat(4 << 20)});
    let digest = |text: &str| Digest::of(text.as_bytes()).to_string();
    let words = Words(vec![
        ("name", "team/app".to_owned()),
        ("long", "a".repeat(256)),
        ("tag129", "a".repeat(129)),
        ("hex32", "0".repeat(32)),
        ("hex40", "0".repeat(40)),
        ("layer", digest("layer")),
        ("config", digest("{}")),
        ("chunks", digest("chunked")),
        ("absent", digest("absent")),
        ("digest", digest(&bytes)),
        ("manifest", bytes),
        ("lacking", manifest("{}", "not there").to_string()),
        ("large", large.to_string()),
        ("oci", OCI.to_owned()),
        ("upload", server.begin("team/app")),
        ("upload2", server.begin("team/app")),
    ]);
    for (endpoint, method, target, header, body, status, code) in ROWS {
        let (target, header, body) = (words.fill(target), words.fill(header), words.fill(body));
        let headers: Vec<(&str, &str)> = header.split_once(": ").into_iter().collect();
        let answer = server.send(method, &target, &headers, body.as_bytes());
        let shown = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, *status, "{endpoint} {method} {target} {header}: {shown}");
        if !code.is_empty() {
            assert_eq!(answer.json()["errors"][0]["code"], *code, "{endpoint} {method} {target}: {shown}");
            assert_eq!(answer.header("content-type"), "application/json", "{endpoint} {method} {target}");
        }
        if *status == 405 {
            assert!(!answer.header("allow").is_empty(), "{endpoint} {method} {target}: {answer:?}");
        }
    }
}

#[test]
fn every_endpoint_answers_with_every_status_from_a_directory() {
    let home = directory();
    answers(&Server::directory(home.path(), &[]));
}

#[test]
fn every_endpoint_answers_with_every_status_from_the_store() {
    let home = directory();
    answers(&Server::start(home.path(), &["--writable"]));
}

/// `DENIED`: what a container has stays.
#[test]
fn an_image_in_use_is_not_deleted() {
    let home = directory();
    let server = Server::start(home.path(), &["--writable"]);
    let image = parts("used", native());
    image.push(&server, "app", "v1");
    let store = Store::new(&home.path().join("data"));
    let name: Reference = "app:v1".parse().expect("name");
    let id = store.id_of(&name).expect("read").expect("image");
    store.hold("container:0123456789abcdef", &id).expect("held");
    let refused = server.send("DELETE", "/v2/app/manifests/v1", &[], b"").fails(409, "DENIED");
    assert!(refused.json()["errors"][0]["message"].as_str().is_some_and(|text| text.contains("0123456789ab")));
    server.send("DELETE", &format!("/v2/app/manifests/{}", image.digest()), &[], b"").fails(409, "DENIED");
    let layer = Digest::of(&image.layer);
    server.send("DELETE", &format!("/v2/app/blobs/{layer}"), &[], b"").fails(405, "UNSUPPORTED");
    image.is_served(&server, "app", "v1");
    store.release("container:0123456789abcdef").expect("released");
    server.send("DELETE", "/v2/app/manifests/v1", &[], b"").is(202);
    server.get("/v2/app/manifests/v1").fails(404, "MANIFEST_UNKNOWN");
}
