use super::*;

fn package(text: &'static str) -> Package<'static> {
    let text: &'static str = Box::leak(
        format!("{text}Architecture: all\nFilename: p.deb\nSize: 1\nSHA256: {}\n", "0".repeat(64)).into_boxed_str(),
    );
    crate::index::parse(text, "all", 0, "test").expect("parse").remove(0)
}

fn solve(texts: &[&'static str], include: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
    let mut packages = vec![package("Package: base\nVersion: 1\nEssential: yes\n")];
    packages.extend(texts.iter().map(|text| package(text)));
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let request = Request { variant: Variant::Minbase, include: own(include), exclude: own(exclude) };
    let universe = Universe::new(&packages);
    let solution = universe.solve(&request).map_err(|error| error.to_string())?;
    Ok(solution.packages.keys().filter(|name| **name != "base").map(|name| (*name).to_owned()).collect())
}

#[test]
fn the_latest_version_and_its_needs() {
    let all = [
        "Package: aa\nVersion: 1\nDepends: old\n",
        "Package: aa\nVersion: 2\nDepends: bb (>= 1~)\nPre-Depends: cc\n",
        "Package: bb\nVersion: 1\n",
        "Package: cc\nVersion: 1\nDepends: aa\n",
    ];
    assert_eq!(solve(&all, &["aa"], &[]), Ok(vec!["aa".into(), "bb".into(), "cc".into()]));
}

#[test]
fn alternatives_prefer_what_is_there_then_what_is_asked_then_the_first() {
    let all = [
        "Package: aa\nVersion: 1\nDepends: xx | yy\n",
        "Package: bb\nVersion: 1\nDepends: yy\n",
        "Package: xx\nVersion: 1\n",
        "Package: yy\nVersion: 1\n",
    ];
    assert_eq!(solve(&all, &["aa"], &[]), Ok(vec!["aa".into(), "xx".into()]));
    assert_eq!(solve(&all, &["aa", "bb"], &[]), Ok(vec!["aa".into(), "bb".into(), "yy".into()]));
    assert_eq!(solve(&all, &["aa", "yy"], &[]), Ok(vec!["aa".into(), "yy".into()]));
    assert_eq!(solve(&all, &["aa"], &["xx"]), Ok(vec!["aa".into(), "yy".into()]));
}

#[test]
fn virtual_packages_by_importance_and_version() {
    let all = [
        "Package: aa\nVersion: 1\nDepends: mail\n",
        "Package: bb\nVersion: 1\nDepends: mail (>= 2)\n",
        "Package: m1\nVersion: 9\nProvides: mail\nPriority: extra\n",
        "Package: m2\nVersion: 1\nProvides: mail (= 2)\nPriority: optional\n",
        "Package: m0\nVersion: 1\nProvides: mail (= 1)\nPriority: extra\n",
    ];
    assert_eq!(solve(&all, &["aa"], &[]), Ok(vec!["aa".into(), "m2".into()]));
    assert_eq!(solve(&all, &["bb"], &[]), Ok(vec!["bb".into(), "m2".into()]));
    assert_eq!(solve(&all, &["aa"], &["m2"]), Ok(vec!["aa".into(), "m0".into()]));
}

#[test]
fn a_choice_that_conflicts_gives_way() {
    let all = [
        "Package: aa\nVersion: 1\nDepends: xx | yy, zz | ww\n",
        "Package: xx\nVersion: 1\n",
        "Package: yy\nVersion: 1\n",
        "Package: zz\nVersion: 1\nDepends: deep\n",
        "Package: deep\nVersion: 1\nBreaks: xx (<< 2)\n",
    ];
    assert_eq!(solve(&all, &["aa"], &[]), Ok(vec!["aa".into(), "deep".into(), "yy".into(), "zz".into()]));
}

#[test]
fn what_cannot_be_is_said() {
    let all = [
        "Package: aa\nVersion: 1\nDepends: gone (>= 2) | also-gone\n",
        "Package: bb\nVersion: 1\nDepends: cc (>= 2)\n",
        "Package: cc\nVersion: 1\nConflicts: aa\n",
        "Package: dd\nVersion: 1\nConflicts: virt\n",
        "Package: ee\nVersion: 1\nProvides: virt\n",
    ];
    let said = |include: &[&str], exclude: &[&str]| solve(&all, include, exclude).expect_err("unsatisfiable");
    assert!(said(&["aa"], &[]).contains("aa 1 depends on gone (>= 2) | also-gone: no package"));
    assert!(said(&["bb"], &[]).contains("bb 1 depends on cc (>= 2): the archive has cc 1"));
    assert!(said(&["bb"], &["cc"]).contains("cc is excluded"));
    assert!(said(&["dd", "ee"], &[]).contains("dd 1 conflicts with ee 1"));
    assert!(said(&["nothing"], &[]).contains("no package \"nothing\""));
    assert!(said(&["cc"], &["cc"]).contains("no package \"cc\""));
}

#[test]
fn a_package_may_conflict_with_what_it_provides_itself() {
    let all = ["Package: aa\nVersion: 1\nProvides: mail\nConflicts: mail\n"];
    assert_eq!(solve(&all, &["aa"], &[]), Ok(vec!["aa".into()]));
}
