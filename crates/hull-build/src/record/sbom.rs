//! What is in an image, as SPDX 2.3 has it: the packages that its package managers list.
//!
//! Nothing in it depends on the machine or on when it is written: its date is the image's, its name is of the image's ID.

use hull_image::provenance::escaped;
use hull_oci::Digest;
use serde_json::{Value, json};

use super::packages::{Package, distribution, installed};
use crate::plan::Planned;
use crate::{Error, files};

/// The type of the predicates.
pub(crate) const PREDICATE: &str = "https://spdx.dev/Document";

/// The document of an image of these layers.
pub(crate) fn predicate(
    files: &files::Sources,
    layers: &[Digest],
    id: &Digest,
    planned: &Planned,
) -> Result<Value, Error> {
    let (packages, distribution) = match layers {
        [] => (Vec::new(), None),
        layers => {
            let tree = files.layers(layers)?;
            (installed(&tree), distribution(&tree))
        }
    };
    let seconds = u64::try_from(planned.created).unwrap_or_default();
    Ok(document(id, seconds, distribution.as_deref(), &packages))
}

/// A package URL.
fn url(package: &Package, distribution: Option<&str>) -> String {
    let (name, version) = (escaped(&package.name), escaped(&package.version));
    let kind = match package.kind.as_str() {
        "deb" => format!("deb/{}", escaped(distribution.unwrap_or("debian"))),
        "apk" => format!("apk/{}", escaped(distribution.unwrap_or("alpine"))),
        "rpm" => format!("rpm/{}", escaped(distribution.unwrap_or("redhat"))),
        "pip" => return format!("pkg:pypi/{}@{version}", escaped(&package.name.to_lowercase().replace('_', "-"))),
        "npm" => {
            let parts: Vec<String> = package.name.split('/').map(escaped).collect();
            return format!("pkg:npm/{}@{version}", parts.join("/"));
        }
        other => escaped(other),
    };
    let architecture = match package.architecture.as_str() {
        "" => String::new(),
        architecture => format!("?arch={}", escaped(architecture)),
    };
    format!("pkg:{kind}/{name}@{version}{architecture}")
}

fn document(id: &Digest, seconds: u64, distribution: Option<&str>, packages: &[Package]) -> Value {
    let created = hull_oci::time::rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX));
    let image = json!({
        "SPDXID": "SPDXRef-Image", "name": id.to_string(), "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false, "primaryPackagePurpose": "CONTAINER",
    });
    let mut listed = vec![image];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for (number, package) in packages.iter().enumerate() {
        let name = format!("SPDXRef-Package-{number}");
        let mut entry = json!({
            "SPDXID": name, "name": package.name, "versionInfo": package.version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": url(package, distribution),
            }],
        });
        if let Some(hash) = &package.hash {
            entry["comment"] = json!(format!("{} of the package manager's record: {hash}", package.kind));
        }
        listed.push(entry);
        relations.push(relation("SPDXRef-Image", "CONTAINS", &name));
    }
    json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": id.to_string(), "documentNamespace": format!("urn:hull:sbom:{id}"),
        "creationInfo": {"created": created, "creators": [format!("Tool: hull-{}", env!("CARGO_PKG_VERSION"))]},
        "packages": listed, "relationships": relations,
    })
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_their_urls() {
        let package = |kind: &str, name: &str, version: &str, architecture: &str| Package {
            kind: kind.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.to_owned(),
            ..Package::default()
        };
        for (package, expected) in [
            (package("deb", "libc6", "2:1.2-3+b1", "amd64"), "pkg:deb/debian/libc6@2%3A1.2-3%2Bb1?arch=amd64"),
            (package("rpm", "bash", "5.2-1.fc40", "x86_64"), "pkg:rpm/redhat/bash@5.2-1.fc40?arch=x86_64"),
            (package("npm", "@s/b", "2.0.0", ""), "pkg:npm/%40s/b@2.0.0"),
            (package("pip", "My_Thing", "1", ""), "pkg:pypi/my-thing@1"),
        ] {
            assert_eq!(url(&package, None), expected);
        }
        let found = document(&Digest::of(b"x"), 0, Some("fedora"), &[package("rpm", "a", "1", "")]);
        assert_eq!(found["creationInfo"]["created"], "1970-01-01T00:00:00Z");
        assert_eq!(found["packages"][1]["externalRefs"][0]["referenceLocator"], "pkg:rpm/fedora/a@1");
        assert_eq!(found["relationships"][1]["relatedSpdxElement"], "SPDXRef-Package-0");
    }
}
