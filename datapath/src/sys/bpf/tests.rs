use super::*;

/// bpf(2) wants root: without it these say so and pass. As root they must work.
fn is_root(test: &str) -> bool {
    // SAFETY: it takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("{test}: skipped, needs root");
    }
    root
}

/// A program that gives back what stands in the first four bytes of entry 0 of `map`.
fn reader(map: &Map) -> Assembler {
    let mut asm = Assembler::new();
    let none = asm.label();
    asm.store(Size::W, Reg::R10, -4, 0);
    asm.mov(Reg::R2, Reg::R10);
    asm.alu(Op::Add, Reg::R2, -4);
    asm.map(Reg::R1, map.as_fd());
    asm.call(helper::MAP_LOOKUP);
    asm.jump(If::Eq, Reg::R0, 0, none);
    asm.load(Size::W, Reg::R0, Reg::R0, 0);
    asm.place(none);
    asm.exit();
    asm
}

#[test]
fn a_program_reads_what_stands_in_a_map() {
    if !is_root("a_program_reads_what_stands_in_a_map") {
        return;
    }
    for kind in [MapKind::Hash, MapKind::Array] {
        let map = Map::new(kind, 4, 8, 4, "test").unwrap();
        map.insert(&[0; 4], &77u64.to_ne_bytes()).unwrap();
        assert_eq!(map.get(&[0; 4]).unwrap(), 77u64.to_ne_bytes());
        for (kind, hook) in [(ProgramKind::SchedCls, Hook::TcxEgress), (ProgramKind::Xdp, Hook::Xdp)] {
            let program = Program::load(kind, hook, "test", reader(&map)).unwrap();
            let (result, frame) = program.test_run(&[1; 60]).unwrap();
            assert_eq!((result, &frame[..]), (77, &[1; 60][..]));
        }
    }
}

#[test]
fn entries_come_and_go() {
    if !is_root("entries_come_and_go") {
        return;
    }
    let map = Map::new(MapKind::Hash, 4, 2, 2, "test").unwrap();
    map.insert(b"abcd", b"12").unwrap();
    map.insert(b"efgh", b"34").unwrap();
    map.insert(b"abcd", b"56").unwrap();
    assert_eq!(map.insert(b"ijkl", b"78").unwrap_err().raw_os_error(), Some(libc::E2BIG));
    assert_eq!(map.get(b"abcd").unwrap(), b"56");
    map.remove(b"abcd").unwrap();
    assert_eq!(map.get(b"abcd").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    assert_eq!(map.remove(b"abcd").unwrap_err().raw_os_error(), Some(libc::ENOENT));
    for error in [map.insert(b"abc", b"12"), map.insert(b"abcd", b"123"), map.remove(b"abcde")] {
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn what_the_verifier_says_is_told() {
    if !is_root("what_the_verifier_says_is_told") {
        return;
    }
    let mut asm = Assembler::new();
    asm.mov(Reg::R0, Reg::R7);
    asm.exit();
    let error = Program::load(ProgramKind::SchedCls, Hook::TcxEgress, "wrong", asm).unwrap_err();
    assert!(error.to_string().contains("R7 !read_ok"), "{error}");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::PermissionDenied);
    let mut asm = Assembler::new();
    let nowhere = asm.label();
    asm.goto(nowhere);
    let error = Program::load(ProgramKind::Xdp, Hook::Xdp, "endless", asm).unwrap_err();
    assert!(matches!(error, LoadError::Unfinished("endless")));
}

#[test]
fn there_must_be_a_device() {
    if !is_root("there_must_be_a_device") {
        return;
    }
    let mut asm = Assembler::new();
    asm.mov(Reg::R0, 0);
    asm.exit();
    let program = Program::load(ProgramKind::SchedCls, Hook::TcxEgress, "test", asm).unwrap();
    let error = program.attach(Hook::TcxEgress, i32::MAX as u32).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
}
