use std::io::{Seek as _, Write as _};

use super::*;

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, content) in members {
        bytes.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 1_700_000_000, 0, 0, 100_644, content.len()).bytes(),
        );
        bytes.extend(*content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    let mut bytes = header.to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().div_ceil(512) * 512 + 1024, 0);
    bytes
}

fn open(bytes: &[u8]) -> Result<Deb, Error> {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(bytes).expect("write");
    file.rewind().expect("rewind");
    Deb::open(file, "x.deb")
}

const CONTROL: &[u8] = b"Package: xx\nVersion: 1\nArchitecture: all\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn xz_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn content(deb: &Deb) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    deb.data().map_err(|error| io::Error::other(error.to_string()))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn all_compressions() {
    let (control, data) = (tar("./control", CONTROL), tar("./file", b"hello"));
    let zst = |bytes: &[u8]| zstd::stream::encode_all(bytes, 1).expect("compress");
    for (suffix, control, packed) in [
        ("", control.clone(), data.clone()),
        (".gz", gzip(&control), gzip(&data)),
        (".xz", xz_bytes(&control), xz_bytes(&data)),
        (".zst", zst(&control), zst(&data)),
    ] {
        let members: [(&str, &[u8]); 4] = [
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar{suffix}"), &control),
            ("_extra", b"odd"),
            (&format!("data.tar{suffix}"), &packed),
        ];
        let deb = open(&ar(&members)).expect(suffix);
        assert_eq!(deb.time, 1_700_000_000);
        deb.check("xx", "1", "all").expect("control");
        assert_eq!(content(&deb).expect("data"), data);
        let error = deb.check("yy", "1", "all").expect_err("another package").to_string();
        assert!(error.contains("its Package is \"xx\", not \"yy\""), "{error}");
    }
}

#[test]
fn cut_short_anywhere() {
    let (control, data) = (gzip(&tar("./control", CONTROL)), gzip(&tar("./file", b"hello")));
    let whole = ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)]);
    let end = whole.len() - data.len() % 2;
    for length in 0..end {
        let error = open(&whole[..length]).map(drop).expect_err("cut short").to_string();
        assert!(error.starts_with("x.deb: it is no Debian package: "), "{error}");
    }
    assert!(open(&whole[..end]).is_ok());
}

#[test]
fn damaged_members() {
    let control = tar("./control", CONTROL);
    let said = |members: &[(&str, &[u8])]| open(&ar(members)).map(drop).expect_err("damaged").to_string();
    assert!(said(&[]).contains("lacks a member"));
    assert!(said(&[("data.tar", b"")]).contains("first member"));
    assert!(said(&[("debian-binary", b"3.0\n")]).contains("unknown version"));
    assert!(said(&[("debian-binary", b"2.0\n"), ("data.tar", b""), ("control.tar", b"")]).contains("order"));
    assert!(said(&[("debian-binary", b"2.0\n"), ("control.tar.lzma", &control)]).contains("neither gzip"));
    let deb = open(&ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", b"junk"), ("data.tar.gz", b"junk")]));
    let deb = deb.expect("the table is whole");
    assert!(deb.control().is_err() && content(&deb).is_err());
}

#[test]
fn what_unpacks_to_more_than_allowed_is_stopped() {
    let mut reader = Bounded { reader: io::repeat(0), left: 1000 };
    let error = io::copy(&mut reader, &mut io::sink()).expect_err("endless").to_string();
    assert!(error.contains("more than is allowed"), "{error}");
}
