//! `hull cp`, with Docker's rules, and against containers that change what is copied.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;

use hull_testkit::race::Race;
use hull_testkit::{Home, finish, loops};

use super::{create, home, names, start, volume};

/// Both kinds of container have the same rules.
fn both(h: &Home, test: impl Fn(&Home, &str)) {
    create(h, "stopped", &["-v", "data:/data"]);
    start(h, "running", &["-v", "data:/data"]);
    for name in ["stopped", "running"] {
        test(h, name);
    }
}

#[test]
fn root_what_goes_where_is_docker_s() {
    let Some(h) = home() else { return };
    std::fs::create_dir_all(h.at("d/sub")).expect("create");
    std::fs::write(h.at("f"), "file").expect("write");
    std::fs::write(h.at("d/a"), "a").expect("write");
    std::os::unix::fs::chown(h.at("d/a"), Some(55), Some(66)).expect("chown");
    symlink("a", h.at("d/link")).expect("symlink");
    symlink("f", h.at("lf")).expect("symlink");
    symlink("d", h.at("ld")).expect("symlink");
    both(&h, |h, name| {
        let to = |path: &str| format!("{name}:{path}");
        let cat = |path: &str| {
            let out = h.at(&format!("out-{name}"));
            let _ = std::fs::remove_file(&out);
            let _ = h.run(&["cp", "-L", &to(path), &out.to_string_lossy()]).ok();
            std::fs::read_to_string(&out).expect("read")
        };
        for words in
            [["f", "/f1"], ["f", "/tmp"], ["f", "/tmp/"], ["d", "/dd"], ["d", "/dd"], ["d/.", "/de"], ["d/", "/df/"]]
        {
            let out = h.run(&["cp", words[0], &to(words[1])]).ok();
            assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""), "{words:?}");
        }
        for path in ["/f1", "/tmp/f"] {
            assert_eq!(cat(path), "file", "{path}");
        }
        for path in ["/dd/a", "/dd/link", "/dd/d/a", "/de/a", "/df/a", "dd/a", "/../dd/a"] {
            assert_eq!(cat(path), "a", "{path}");
        }
        // Links of the source, and of the destination.
        let _ = h.run(&["cp", "lf", &to("/lf1")]).ok();
        let _ = h.run(&["cp", &to("/lf1"), &format!("lf-{name}")]).ok();
        assert_eq!(std::fs::read_link(h.at(&format!("lf-{name}"))).expect("link").to_str(), Some("f"));
        let _ = h.run(&["cp", "f", &to("/lf1")]).ok();
        assert_eq!(cat("/f"), "file", "a link that leads nowhere is followed inside the container");
        let _ = h.run(&["cp", "-L", "ld", &to("/ld3")]).ok();
        assert_eq!(cat("/ld3/a"), "a");
        // Out.
        let out = format!("o-{name}");
        let _ = h.run(&["cp", &to("/dd"), &out]).ok();
        assert_eq!(names(&h.at(&out)), ["a", "d", "link", "sub"]);
        assert_eq!(h.at(&out).join("a").metadata().expect("copied").uid(), 0, "the caller's");
        let _ = h.run(&["cp", &to("/dd"), &out]).ok();
        assert_eq!(names(&h.at(&out)), ["a", "d", "dd", "link", "sub"]);
        let _ = h.run(&["cp", "-a", &to("/dd/."), &out]).ok();
        assert_eq!(h.at(&out).join("a").metadata().expect("copied").uid(), 55, "-a keeps owners");
        // Volumes.
        let _ = h.run(&["cp", "f", &to("/data/of-cp")]).ok();
        assert_eq!(std::fs::read(volume(h, "data").join("of-cp")).expect("in the volume"), b"file");
        for (words, reason) in [
            (["f", "/nodir/"], "no such directory"),
            (["f", "/no/x"], &format!("Could not find the file /no in container {name}")[..]),
            (["d", "/f1"], "cannot copy directory"),
            (["f", "/f1/"], "no such directory"),
            (["f", "/f1/x"], "extraction point is not a directory"),
            (["nope", "/x"], "nope: no such file or directory"),
            (["f/", "/x"], "not a directory"),
            (["f", ""], "destination can not be empty"),
        ] {
            h.run(&["cp", words[0], &to(words[1])]).fails(reason);
        }
        for (words, reason) in [
            (["/nope", "y"], &format!("Could not find the file /nope in container {name}")[..]),
            (["/f1/", "y"], "lstat /f1/: not a directory"),
            (["/f1", "no/y"], "invalid output path: directory"),
            (["/f1", "new/"], "no such directory"),
            (["/dd", "f"], "cannot copy directory"),
            (["", "y"], "path cannot be empty"),
        ] {
            h.run(&["cp", &to(words[0]), words[1]]).fails(reason);
        }
    });
    h.run(&["cp", "a", "b"]).fails("must specify at least one container source");
    h.run(&["cp", "a:/x", "b:/x"]).fails("copying between containers is not supported");
    h.run(&["cp", "none:/x", "b"]).fails("no such container: none");
    let _ = h.run(&["rm", "-f", "running", "stopped"]).ok();
    h.assert_clean();
}

#[test]
fn root_archives_both_ways() {
    let Some(h) = home() else { return };
    both(&h, |h, name| {
        let tar = h.at(&format!("{name}.tar"));
        let mut out = h.hull(&["cp", &format!("{name}:/data"), "-"]);
        let output = out.output().expect("run");
        assert!(output.status.success(), "{output:?}");
        std::fs::write(&tar, &output.stdout).expect("write");
        let list = finish(std::process::Command::new("tar").arg("-tf").arg(&tar)).ok();
        assert_eq!(list.lines(), ["data/", "data/file", "data/link", "data/sub/", "data/sub/again"]);
        let _ = finish(std::process::Command::new("gzip").arg("-kf").arg(&tar)).ok();
        for (file, place) in [(tar.clone(), "/tmp"), (tar.with_extension("tar.gz"), "/run")] {
            let mut put = h.hull(&["cp", "-", &format!("{name}:{place}")]);
            let _ = finish(put.stdin(Stdio::from(std::fs::File::open(file).expect("open")))).ok();
            let back = format!("back-{name}");
            let _ = h.run(&["cp", "-a", &format!("{name}:{place}/data/file"), &back]).ok();
            let copied = h.at(&back).metadata().expect("copied");
            assert_eq!((copied.uid(), copied.gid(), copied.len()), (1234, 2345, 12));
        }
        for place in ["/probe", "/nope"] {
            let mut put = h.hull(&["cp", "-", &format!("{name}:{place}")]);
            put.stdin(Stdio::from(std::fs::File::open(&tar).expect("open")));
            finish(&mut put).fails(&format!("destination \"{name}:{place}\" must be a directory"));
        }
        let mut junk = h.hull(&["cp", "-", &format!("{name}:/tmp")]);
        let mut child = junk.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let _ = child.stdin.take().expect("stdin").write_all(b"junk");
        let output = child.wait_with_output().expect("wait");
        assert!(String::from_utf8_lossy(&output.stderr).contains("unexpected EOF"), "{output:?}");
    });
}

#[test]
fn root_special_files_and_read_only_places() {
    let Some(h) = home() else { return };
    std::fs::create_dir(h.at("host")).expect("create");
    start(&h, "cc", &["--read-only", "-v", "data:/data", "-v", "./host:/host:ro"]);
    create(&h, "ss", &["--read-only", "-v", "data:/data", "-v", "./host:/host:ro"]);
    std::fs::write(h.at("f"), "file").expect("write");
    for name in ["cc", "ss"] {
        h.run(&["cp", "f", &format!("{name}:/f")]).fails("container rootfs is marked read-only");
        h.run(&["cp", "f", &format!("{name}:/host/f")]).fails("marked read-only");
        let _ = h.run(&["cp", "f", &format!("{name}:/data/{name}")]).ok();
    }
    assert_eq!(names(&h.at("host")), [""; 0]);
    // What is mounted on a single file gets the content; nothing magic is followed.
    start(&h, "ww", &[]);
    let _ = h.run(&["cp", "f", "ww:/etc/hosts"]).ok();
    assert_eq!(h.run(&["exec", "ww", "/probe", "cat", "/etc/hosts"]).ok().text(), "file");
    h.run(&["cp", "ww:/proc/1/root/etc", "x"]).fails("too many levels of symbolic links");
    h.run(&["cp", "f", "ww:/proc/1/cwd/x"]).fails("");
    // Devices and set-user-ID bits stay inside.
    let _ = h
        .run(&[
            "exec",
            "ww",
            "/probe",
            "write",
            "/tmp/suid",
            "x",
            "+",
            "chmod",
            "/tmp/suid",
            "4755",
            "+",
            "chown",
            "/tmp/suid",
            "1000",
            "1000",
            "+",
            "chmod",
            "/tmp/suid",
            "6755",
        ])
        .ok();
    let _ = h.run(&["cp", "ww:/tmp/suid", "suid"]).ok();
    assert_eq!(h.at("suid").metadata().expect("copied").permissions().mode() & 0o7777, 0o755);
    let out = h.run(&["cp", "ww:/dev/.", "dev"]).ok();
    assert!(out.stderr.contains("left out"), "{}", out.stderr);
    assert!(!h.at("dev/null").exists());
}

/// The container exchanges a directory with a link to a path of the host, in both directions of the copy.
#[test]
fn root_exchanged_links_lead_nowhere_on_the_host() {
    let Some(h) = home() else { return };
    let outside = h.at("outside");
    std::fs::create_dir(&outside).expect("create");
    std::fs::write(outside.join("secret"), "secret").expect("write");
    start(&h, "cc", &["-v", "data:/data"]);
    // The volume's directory is where the container's process would do it; the host's path means the same file.
    let inside = volume(&h, "data").join("x");
    std::fs::create_dir(&inside).expect("create");
    std::fs::write(inside.join("secret"), "harmless").expect("write");
    let link = volume(&h, "data").join("y");
    symlink(&outside, &link).expect("symlink");
    std::fs::write(h.at("evil"), "evil").expect("write");
    std::fs::create_dir_all(h.at("tree/x")).expect("create");
    std::fs::write(h.at("tree/x/evil"), "evil").expect("write");
    let race = Race::exchange(&inside, &link);
    for turn in 0..loops(40) {
        let out = h.at(&format!("out{turn}"));
        let _ = h.run(&["cp", "cc:/data/x/secret", &out.to_string_lossy()]);
        if let Ok(text) = std::fs::read_to_string(&out) {
            assert_eq!(text, "harmless", "a file of the host was copied");
        }
        let tree = h.at(&format!("tree{turn}"));
        let _ = h.run(&["cp", "cc:/data", &tree.to_string_lossy()]);
        for name in ["x/secret", "y/secret"] {
            if tree.join(name).symlink_metadata().is_ok() && !tree.join(name).parent().expect("parent").is_symlink() {
                assert_eq!(std::fs::read_to_string(tree.join(name)).expect("read"), "harmless");
            }
        }
        let _ = h.run(&["cp", "evil", "cc:/data/x/evil"]);
        let _ = h.run(&["cp", "tree/.", "cc:/data"]);
        assert_eq!(names(&outside), ["secret"], "something was written to the host");
    }
    drop(race);
    let _ = h.run(&["rm", "-f", "cc"]).ok();
    h.assert_clean();
}

/// An image with programs that an engine might start to unpack or look up names: none is executed.
#[test]
fn root_nothing_of_the_container_is_executed() {
    let Some(h) = home() else { return };
    start(&h, "cc", &[]);
    std::fs::write(h.at("trap"), format!("#!/probe write {} x\n", "/trapped")).expect("write");
    std::fs::set_permissions(h.at("trap"), std::fs::Permissions::from_mode(0o755)).expect("mode");
    std::fs::create_dir_all(h.at("bin")).expect("create");
    for name in ["xz", "unpigz", "gzip", "tar", "zstd"] {
        std::fs::copy(h.at("trap"), h.at("bin").join(name)).expect("copy");
    }
    let _ = h.run(&["cp", "bin", "cc:/bin"]).ok();
    let _ = h.run(&["cp", "bin", "cc:/usr"]).ok();
    let archive = finish(std::process::Command::new("sh").current_dir(h.path()).args(["-c", "tar -czf a.tar.gz trap"]));
    let _ = archive.ok();
    let mut put = h.hull(&["cp", "-", "cc:/tmp"]);
    let _ = finish(put.stdin(Stdio::from(std::fs::File::open(h.at("a.tar.gz")).expect("open")))).ok();
    let _ = h.run(&["export", "-o", "c.tar", "cc"]).ok();
    let found = h.run(&["exec", "cc", "/probe", "ls", "/"]).ok();
    assert!(!found.lines().contains(&"trapped"), "{}", found.stdout);
}
