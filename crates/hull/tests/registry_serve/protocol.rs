//! The specification's endpoints, with every status that it names.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hull_oci::Digest;
use hull_testkit::json;

use crate::client::{INDEX, OCI, Server, manifest, sha512};

/// Each of these for a directory and for Hull's own store.
macro_rules! for_each_source {
    ($($test:ident)*) => {
        mod a_directory {
            $(#[test]
            fn $test() {
                let home = crate::client::directory();
                super::$test(&crate::client::Server::directory(home.path(), &[]));
            })*
        }
        mod the_store {
            $(#[test]
            fn $test() {
                let home = crate::client::directory();
                super::$test(&crate::client::Server::start(home.path(), &["--writable"]));
            })*
        }
    };
}

for_each_source! {
    base_and_unknown_endpoints
    hostile_names_digests_and_ranges
    blobs_are_read_by_part_and_deleted
    uploads_whole_in_chunks_and_wrong
    a_broken_upload_goes_on_where_it_broke
    mounts_from_a_repository_or_any
    manifests_come_back_as_they_were
    wrong_manifests_are_refused
    tags_and_manifests_are_deleted
    lists_come_in_pages
    referrers_are_listed_filtered_and_forgotten
}

fn base_and_unknown_endpoints(server: &Server) {
    let base = server.get("/v2/").is(200);
    assert_eq!(base.header("docker-distribution-api-version"), "registry/2.0");
    server.send("HEAD", "/v2/", &[], b"").is(200);
    server.get("/v1/").fails(404, "NAME_UNKNOWN");
    server.get("/v2/a/tags/list").fails(404, "NAME_UNKNOWN");
    server.get("/v2/a/manifests/v1").fails(404, "NAME_UNKNOWN");
    let none = server.send("POST", "/v2/a/manifests/v1", &[], b"").fails(405, "UNSUPPORTED");
    assert_eq!(none.header("allow"), "GET, HEAD, PUT, DELETE");
    server.send("PATCH", "/v2/", &[], b"").fails(405, "UNSUPPORTED");
}

fn hostile_names_digests_and_ranges(server: &Server) {
    let long = "a".repeat(300);
    let hex = "a".repeat(64);
    for name in ["A", "a//b", "../x", "a/../../x", "a/%2e%2e/x", "_blobs", "a/_tags", ".x", "a%00b", "a%2f..", &long] {
        server.get(&format!("/v2/{name}/tags/list")).fails(400, "NAME_INVALID");
        server.send("POST", &format!("/v2/{name}/blobs/uploads/"), &[], b"").fails(400, "NAME_INVALID");
    }
    for digest in
        ["sha256:zz", "sha256:", "md5:00", &format!("sha256:{hex}0"), &format!("sha512:{hex}"), "sha256:..%2f"]
    {
        let answer = server.get(&format!("/v2/a/blobs/{digest}"));
        assert!([400, 404].contains(&answer.status), "{digest}: {answer:?}");
    }
    server.get("/v2/a/blobs/sha256:zz").fails(400, "DIGEST_INVALID");
    server.get(&format!("/v2/a/blobs/sha256:{hex}")).fails(404, "BLOB_UNKNOWN");
    server.get("/v2/a/manifests/.hidden").fails(400, "MANIFEST_INVALID");
    server.get("/v2/a/tags/list?n=x").is(404);
    server.get(&format!("/v2/a/blobs/uploads/{}", "0".repeat(32))).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.get("/v2/a/blobs/uploads/..").fails(404, "BLOB_UPLOAD_UNKNOWN");
    let location = server.begin("a");
    for range in ["x", "5-1", "-1", "0-99999999999999999999", "a-b"] {
        server.send("PATCH", &location, &[("content-range", range)], b"12").fails(400, "BLOB_UPLOAD_INVALID");
    }
    // Another repository's upload is not there.
    server.get(&location.replace("/v2/a/", "/v2/b/")).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.get(&location).is(204);
}

fn blobs_are_read_by_part_and_deleted(server: &Server) {
    let content: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
    let location = server.begin("team/app");
    let digest = Digest::of(&content);
    let put = server.send("PUT", &format!("{location}?digest={digest}"), &[], &content).is(201);
    let target = format!("/v2/team/app/blobs/{digest}");
    assert_eq!((put.header("location"), put.header("docker-content-digest")), (&*target, &*digest.to_string()));
    let head = server.send("HEAD", &target, &[], b"").is(200);
    assert_eq!(head.header("content-length"), content.len().to_string());
    assert_eq!(head.header("accept-ranges"), "bytes");
    let get = server.get(&target).is(200);
    assert_eq!(get.header("docker-content-digest"), digest.to_string());
    assert!(get.body == content);
    let part = server.send("GET", &target, &[("range", "bytes=300000-599999")], b"").is(206);
    assert_eq!(part.header("content-range"), format!("bytes 300000-599999/{}", content.len()));
    assert!(part.body == content[300_000..600_000]);
    let last = server.send("GET", &target, &[("range", "bytes=-10")], b"").is(206);
    assert_eq!(last.body, content[content.len() - 10..]);
    let beyond = server.send("GET", &target, &[("range", "bytes=99999999-")], b"").is(416);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", content.len()));
    let tag = format!("\"{digest}\"");
    server.send("GET", &target, &[("if-none-match", &tag)], b"").is(304);
    server.send("DELETE", &target, &[], b"").is(202);
    server.get(&target).fails(404, "BLOB_UNKNOWN");
    server.send("DELETE", &target, &[], b"").fails(404, "BLOB_UNKNOWN");
    // The empty blob is one.
    let empty = server.blob("a", b"");
    assert_eq!(server.get(&format!("/v2/a/blobs/{empty}")).is(200).body, b"");
}

fn uploads_whole_in_chunks_and_wrong(server: &Server) {
    let other = Digest::of(b"other");
    server.send("POST", &format!("/v2/a/blobs/uploads/?digest={other}"), &[], b"this").fails(400, "DIGEST_INVALID");
    server.send("POST", "/v2/a/blobs/uploads/?digest=sha256:1", &[], b"this").fails(400, "DIGEST_INVALID");
    server.send("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", &[], b"").fails(400, "DIGEST_INVALID");

    let location = server.begin("a");
    let first = server.send("PATCH", &location, &[("content-range", "0-3")], b"abcd").is(202);
    assert_eq!((first.header("range"), first.header("location")), ("0-3", &*location));
    let wrong = server.send("PATCH", &location, &[("content-range", "6-7")], b"xy").fails(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((wrong.header("range"), wrong.header("location")), ("0-3", &*location));
    server.send("PATCH", &location, &[("content-range", "0-3")], b"abcd").is(416);
    server.send("PATCH", &location, &[("content-range", "4-9")], b"xy").fails(400, "SIZE_INVALID");
    assert_eq!(server.get(&location).is(204).header("range"), "0-3");
    server.send("PATCH", &location, &[("content-range", "4-5")], b"ef").is(202);
    server.send("PUT", &location, &[], b"").fails(400, "DIGEST_INVALID");
    let digest = Digest::of(b"abcdefgh");
    let target = format!("{location}?digest={digest}");
    server.send("PUT", &target, &[("content-range", "9-10")], b"gh").is(416);
    server.send("PUT", &target, &[("content-range", "6-7")], b"gh").is(201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body, b"abcdefgh");
    server.get(&location).fails(404, "BLOB_UPLOAD_UNKNOWN");
    server.send("PUT", &target, &[], b"").fails(404, "BLOB_UPLOAD_UNKNOWN");

    // A wrong digest ends the upload; so does its deletion.
    let location = server.begin("a");
    server.send("PATCH", &location, &[], b"streamed").is(202);
    server.send("PUT", &format!("{location}?digest={other}"), &[], b"").fails(400, "DIGEST_INVALID");
    server.get(&location).is(404);
    let location = server.begin("a");
    server.send("DELETE", &location, &[], b"").is(204);
    server.send("DELETE", &location, &[], b"").fails(404, "BLOB_UPLOAD_UNKNOWN");

    // SHA-512, announced and not.
    let digest = sha512(b"five hundred");
    for query in ["?digest-algorithm=sha512", ""] {
        let begun = server.send("POST", &format!("/v2/a/blobs/uploads/{query}"), &[], b"").is(202);
        let target = format!("{}?digest={digest}", begun.header("location"));
        server.send("PUT", &target, &[], b"five hundred").is(201);
    }
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).is(200).body, b"five hundred");
}

fn a_broken_upload_goes_on_where_it_broke(server: &Server) {
    let location = server.begin("a");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("connect");
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(&[7; 600_000]).expect("sent");
    drop(stream);
    // The server may not have read all of it yet.
    let begun = Instant::now();
    while server.get(&location).is(204).header("range") != "0-599999" {
        assert!(begun.elapsed() < Duration::from_secs(30), "what came before the break is kept");
    }
    let digest = Digest::of(&vec![7; 1_000_000]);
    server
        .send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "600000-999999")], &[7; 400_000])
        .is(201);
}

fn mounts_from_a_repository_or_any(server: &Server) {
    let digest = server.blob("a", b"shared");
    let mount = |name: &str, query: &str| {
        server.send("POST", &format!("/v2/{name}/blobs/uploads/?mount={digest}{query}"), &[], b"")
    };
    let mounted = mount("b", "&from=a").is(201);
    assert_eq!(mounted.header("location"), format!("/v2/b/blobs/{digest}"));
    assert_eq!(server.get(&format!("/v2/b/blobs/{digest}")).is(200).body, b"shared");
    mount("c", "").is(201);
    let begun = mount("d", "&from=nowhere").is(202);
    assert!(begun.header("location").starts_with("/v2/d/blobs/uploads/"));
    server.get(&format!("/v2/d/blobs/{digest}")).is(404);
    mount("e", "&from=../a").fails(400, "NAME_INVALID");
    server.send("POST", "/v2/e/blobs/uploads/?mount=sha256:1&from=a", &[], b"").fails(400, "DIGEST_INVALID");
    // One repository's deletion is not another's.
    server.send("DELETE", &format!("/v2/a/blobs/{digest}"), &[], b"").is(202);
    server.get(&format!("/v2/b/blobs/{digest}")).is(200);
}

fn manifests_come_back_as_they_were(server: &Server) {
    let value = server.manifest("a", "one");
    let bytes = format!("{value} \n");
    let digest = Digest::of(bytes.as_bytes());
    let kind = [("content-type", OCI)];
    let put = server.send("PUT", "/v2/a/manifests/v1", &kind, bytes.as_bytes()).is(201);
    assert_eq!(put.header("docker-content-digest"), digest.to_string());
    assert_eq!(put.header("location"), format!("/v2/a/manifests/{digest}"));
    for reference in ["v1", &digest.to_string()] {
        let get = server.get(&format!("/v2/a/manifests/{reference}")).is(200);
        assert_eq!((get.header("content-type"), &*get.body), (OCI, bytes.as_bytes()));
        let head = server.send("HEAD", &format!("/v2/a/manifests/{reference}"), &[], b"").is(200);
        assert_eq!(head.header("content-length"), bytes.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
    }
    server.get("/v2/a/manifests/v2").fails(404, "MANIFEST_UNKNOWN");

    // By digest, with more tags; by SHA-512.
    let tagged = server.send("PUT", &format!("/v2/a/manifests/{digest}?tag=x&tag=y"), &kind, bytes.as_bytes()).is(201);
    assert_eq!(tagged.headers.iter().filter(|(name, _)| name == "oci-tag").count(), 2);
    server.get("/v2/a/manifests/y").is(200);
    let long = sha512(bytes.as_bytes());
    let put = server.send("PUT", &format!("/v2/a/manifests/{long}"), &kind, bytes.as_bytes()).is(201);
    assert_eq!(put.header("docker-content-digest"), long.to_string());
    assert_eq!(server.get(&format!("/v2/a/manifests/{long}")).is(200).body, bytes.as_bytes());

    // Docker's form, and an index; neither needs a Content-Type.
    let mut docker = value.clone();
    docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
    let member = server.put("a", "docker", &docker);
    let get = server.get("/v2/a/manifests/docker").is(200);
    assert_eq!(get.header("content-type"), "application/vnd.docker.distribution.manifest.v2+json");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": OCI, "digest": member.to_string(), "size": 5}]});
    server.send("PUT", "/v2/a/manifests/index", &[], index.to_string().as_bytes()).is(201);
    assert_eq!(server.get("/v2/a/manifests/index").is(200).header("content-type"), INDEX);
}

fn wrong_manifests_are_refused(server: &Server) {
    let value = server.manifest("a", "one");
    let kind = [("content-type", OCI)];
    let put = |reference: &str, bytes: &[u8]| server.send("PUT", &format!("/v2/a/manifests/{reference}"), &kind, bytes);
    put(&Digest::of(b"other").to_string(), value.to_string().as_bytes()).fails(400, "DIGEST_INVALID");
    put("v1", b"").fails(400, "MANIFEST_INVALID");
    put("v1", b"{").fails(400, "MANIFEST_INVALID");
    put("v1", b"{\"schemaVersion\":1,\"fsLayers\":[]}").fails(400, "MANIFEST_INVALID");
    put("v1?tag=../x", value.to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    put("v1", manifest("{}", "not there").to_string().as_bytes()).fails(404, "MANIFEST_BLOB_UNKNOWN");
    let other = [("content-type", "application/vnd.docker.distribution.manifest.v2+json")];
    server.send("PUT", "/v2/a/manifests/v1", &other, value.to_string().as_bytes()).fails(400, "MANIFEST_INVALID");
    // At most 4 MiB, whether the length is announced or not.
    let mut large = value.clone();
    large["annotations"] = json!({"x": "y".repeat(4 << 20)});
    put("v1", large.to_string().as_bytes()).fails(413, "MANIFEST_INVALID");
    large["annotations"] = json!({"x": "y".repeat((4 << 20) - 1000)});
    put("v1", large.to_string().as_bytes()).is(201);
    // Layers that may not be distributed need not be there.
    let mut foreign = manifest("{\"of\":\"one\"}", "elsewhere");
    foreign["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar");
    put("v2", foreign.to_string().as_bytes()).is(201);
}

fn tags_and_manifests_are_deleted(server: &Server) {
    let value = server.manifest("a", "one");
    let digest = server.put("a", "v1", &value);
    server.put("a", "v2", &value);
    server.send("DELETE", "/v2/a/manifests/v1", &[], b"").is(202);
    server.get("/v2/a/manifests/v1").fails(404, "MANIFEST_UNKNOWN");
    server.send("DELETE", "/v2/a/manifests/v1", &[], b"").fails(404, "MANIFEST_UNKNOWN");
    server.get(&format!("/v2/a/manifests/{digest}")).is(200);
    server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").is(202);
    server.get("/v2/a/manifests/v2").fails(404, "MANIFEST_UNKNOWN");
    assert_eq!(server.get("/v2/a/tags/list").is(200).json(), json!({"name": "a", "tags": []}));
    server.send("DELETE", &format!("/v2/a/manifests/{digest}"), &[], b"").fails(404, "MANIFEST_UNKNOWN");
}

fn lists_come_in_pages(server: &Server) {
    for name in ["team/a", "b"] {
        let value = server.manifest(name, "one");
        for tag in ["v1", "v10", "v2", "latest"] {
            server.put(name, tag, &value);
        }
    }
    let all = server.get("/v2/b/tags/list").is(200);
    assert_eq!(all.json(), json!({"name": "b", "tags": ["latest", "v1", "v10", "v2"]}));
    assert_eq!(all.header("link"), "");
    let page = server.get("/v2/b/tags/list?n=3").is(200);
    assert_eq!(page.json()["tags"], json!(["latest", "v1", "v10"]));
    assert_eq!(page.header("link"), "</v2/b/tags/list?n=3&last=v10>; rel=\"next\"");
    let page = server.get("/v2/b/tags/list?n=3&last=v10").is(200);
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["v2"]), ""));
    assert_eq!(server.get("/v2/b/tags/list?n=0").is(200).json()["tags"], json!([]));
    server.get("/v2/b/tags/list?n=-1").is(400);
    let page = server.get("/v2/_catalog?n=1").is(200);
    assert_eq!(page.json(), json!({"repositories": ["b"]}));
    assert_eq!(page.header("link"), "</v2/_catalog?n=1&last=b>; rel=\"next\"");
    assert_eq!(server.get("/v2/_catalog?n=1&last=b").is(200).json(), json!({"repositories": ["team/a"]}));
}

fn referrers_are_listed_filtered_and_forgotten(server: &Server) {
    // The subject need not be there.
    let subject = Digest::of(b"some subject");
    let list = format!("/v2/a/referrers/{subject}");
    let none = server.get(&list).is(200);
    assert_eq!((none.header("content-type"), none.json()["manifests"].clone()), (INDEX, json!([])));
    let mut digests = Vec::new();
    for number in 0..5 {
        let mut value = server.manifest("a", &number.to_string());
        value["subject"] = json!({"mediaType": OCI, "digest": subject.to_string(), "size": 12});
        value["artifactType"] = json!(if number < 3 { "text/a" } else { "text/b+c" });
        value["annotations"] = json!({"number": number.to_string()});
        let bytes = value.to_string();
        let digest = Digest::of(bytes.as_bytes());
        let target = format!("/v2/a/manifests/{digest}");
        let put = server.send("PUT", &target, &[("content-type", OCI)], bytes.as_bytes()).is(201);
        assert_eq!(put.header("oci-subject"), subject.to_string());
        digests.push((digest, bytes.len()));
    }
    let all = server.get(&list).is(200).json();
    assert_eq!((all["mediaType"].clone(), all["manifests"].as_array().map(Vec::len)), (json!(INDEX), Some(5)));
    let entry = all["manifests"].as_array().and_then(|all| all.iter().find(|one| one["annotations"]["number"] == "4"));
    let expected = json!({"mediaType": OCI, "digest": digests[4].0.to_string(), "size": digests[4].1,
        "artifactType": "text/b+c", "annotations": {"number": "4"}});
    assert_eq!(entry, Some(&expected));
    let filtered = server.get(&format!("{list}?artifactType=text/b%2Bc")).is(200);
    assert_eq!(filtered.header("oci-filters-applied"), "artifactType");
    assert_eq!(filtered.json()["manifests"].as_array().map(Vec::len), Some(2));
    // Pages keep the filter.
    let (mut seen, mut next) = (0, format!("{list}?n=2&artifactType=text/a"));
    while !next.is_empty() {
        let page = server.get(&next).is(200);
        seen += page.json()["manifests"].as_array().map_or(0, Vec::len);
        let link = page.header("link");
        next = link.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    }
    assert_eq!(seen, 3);
    server.send("DELETE", &format!("/v2/a/manifests/{}", digests[4].0), &[], b"").is(202);
    assert_eq!(server.get(&list).json()["manifests"].as_array().map(Vec::len), Some(4));
}
