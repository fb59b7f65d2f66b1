//! Repositories made for the tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::files::tree::FileTree as _;

fn parsed(text: &str) -> GitSource {
    parse(text).unwrap().unwrap()
}

#[test]
fn addresses_are_told_from_paths() {
    for text in ["https://h/x.git", "https://h/x.git#main:sub", "git@h:x/y", "ssh://h/x", "git://h/x", "github.com/x/y"]
    {
        assert!(parse(text).is_some(), "{text}");
    }
    for text in ["https://h/x", "./x.git", "/x.git", "x.git", "file:///x.git", "a b@h:x", "C:x", "h:x", "x@y"] {
        assert!(parse(text).is_none(), "{text}");
    }
    let source = parsed("https://h/x.git#v1:a/b");
    assert_eq!((source.url.as_str(), source.reference.as_str()), ("https://h/x.git", "v1"));
    assert_eq!((source.subdir.as_str(), source.submodules), ("a/b", true));
    let source = parsed("https://h/x.git?tag=v1&subdir=a%2Fb&checksum=abcdef0&keep-git-dir=1&submodules=false");
    assert_eq!((source.reference.as_str(), source.subdir.as_str()), ("refs/tags/v1", "a/b"));
    assert_eq!(source.checksum.as_deref(), Some("abcdef0"));
    assert_eq!((source.keep_git_dir, source.submodules), (true, false));
    assert_eq!(parsed("github.com/x/y").url, "https://github.com/x/y");
    for text in ["https://h/x.git?what=1", "https://h/x.git?ref=a&tag=b", "git://h/x?ref=%zz"] {
        assert!(parse(text).unwrap().is_err(), "{text}");
    }
    assert_eq!(without_password("fatal: 'https://u:p@h/x' is"), "fatal: 'https://h/x' is");
}

#[test]
fn hostile_addresses_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let repositories = Repositories::new(directory.path().join("git"));
    let check = |url: &str, reference: &str| {
        let source = GitSource { url: url.to_owned(), reference: reference.to_owned(), ..GitSource::default() };
        let error = repositories.checkout(&source, None, &|| false).unwrap_err().to_string();
        assert!(error.starts_with("git address"), "{error}");
    };
    check("--upload-pack=touch /tmp/x", "");
    check("ext::sh -c touch% /tmp/x", "");
    check("file:///etc", "");
    check("/etc", "");
    check("https://h/x.git", "--upload-pack=x");
    check("https://h/x.git", "a:b");
    check("https://h/x.git", "a..b");
    check("https://h/x\n.git\u{7}", "");
    assert!(!directory.path().join("git").exists());
}

/// A repository with a branch, a tag, a link and a submodule. Returns its first commit.
fn repository(root: &Path) -> String {
    let script = r#"
            set -e
            export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a
            export GIT_COMMITTER_EMAIL=a@b GIT_AUTHOR_DATE='1600000000 +0000' GIT_COMMITTER_DATE='1600000000 +0000'
            git init -q -b main part && cd part && echo part >p && git add . && git commit -qm p && cd ..
            git init -q -b main whole && cd whole
            mkdir -p sub/deep .git/hooks && echo one >sub/deep/f && echo x >run && chmod 755 run && ln -s /etc out
            printf '#!/bin/sh
touch ../../hooked
' >.git/hooks/post-checkout && chmod 755 .git/hooks/post-checkout
            git -c protocol.file.allow=always submodule --quiet add "$PWD/../part" part
            git add . && git commit -qm one && git tag -a -m t v1 && git rev-parse HEAD
            echo two >sub/deep/f && git commit -qam two && git checkout -qb other
        "#;
    let output = Command::new("sh").args(["-c", script]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn commits_are_checked_out() {
    let directory = tempfile::tempdir().unwrap();
    let first = repository(directory.path());
    let repositories = Repositories::new(directory.path().join("git")).with_local();
    let url = format!("file://{}/whole", directory.path().display());
    let source = |reference: &str| GitSource {
        url: url.clone(),
        reference: reference.to_owned(),
        submodules: true,
        ..GitSource::default()
    };
    let checkout = |source: &GitSource| repositories.checkout(source, None, &|| false);
    let head = checkout(&source("")).unwrap();
    assert_eq!(
        fs::read_to_string(head.directory.join("sub/deep/f")).unwrap(),
        "two
"
    );
    assert_eq!(
        fs::read_to_string(head.directory.join("part/p")).unwrap(),
        "part
"
    );
    assert!(!head.directory.join(".git").exists() && !head.directory.join("part/.git").exists());
    assert_eq!(head.time, 1_600_000_000);
    // A tag is its commit; a commit is the same files again.
    let tag = checkout(&source("v1")).unwrap();
    assert_eq!(tag.commit, first);
    assert_eq!(
        fs::read_to_string(tag.directory.join("sub/deep/f")).unwrap(),
        "one
"
    );
    let commit = checkout(&source(&first)).unwrap();
    assert_eq!(commit.directory, tag.directory);
    assert_eq!(checkout(&source(&first[..8])).unwrap().commit, first);
    let tree = RepositoryTree::open(commit).unwrap();
    let (root, _) = tree.root().unwrap();
    let modes: Vec<_> = tree.list(&root).unwrap().into_iter().map(|(name, meta)| (name, meta.mode)).collect();
    assert!(modes.contains(&(b"run".to_vec(), 0o755)), "{modes:?}");
    // Parts, and what they may not be.
    let part = GitSource { subdir: "/sub/deep/".to_owned(), checksum: Some(first[..8].to_owned()), ..source("v1") };
    assert!(checkout(&part).unwrap().directory.join("f").exists());
    for subdir in ["out", "sub/deep/f", "../..", "nope"] {
        let outside = GitSource { subdir: subdir.to_owned(), ..source("v1") };
        match checkout(&outside) {
            Ok(found) => assert!(found.directory.starts_with(directory.path().join("git")), "{subdir}"),
            Err(error) => assert!(error.to_string().contains("no directory"), "{error}"),
        }
    }
    let wrong = GitSource { checksum: Some("0123456".to_owned()), ..source("v1") };
    assert!(checkout(&wrong).unwrap_err().to_string().contains("expected checksum"));
    assert!(checkout(&source("nope")).unwrap_err().to_string().contains("does not contain ref nope"));
    let kept = GitSource { keep_git_dir: true, submodules: false, ..source("other") };
    let kept = checkout(&kept).unwrap();
    assert!(kept.directory.join(".git").exists() && !kept.directory.join("part/p").exists());
    assert!(!directory.path().join("hooked").exists());
    assert!(matches!(repositories.checkout(&source("main"), None, &|| true), Err(Error::Canceled)));
}
