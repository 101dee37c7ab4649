use super::*;

fn read(bytes: &[u8]) -> Result<Pickle, PickleError> {
    parse(bytes).map(|(pickle, _)| pickle)
}

fn json(bytes: &[u8]) -> Json {
    let pickle = read(bytes).expect("a pickle");
    pickle.to_json(pickle.root()).expect("plain values")
}

/// Made with Python 3.11's `pickle.dumps` of `{'a': [1, -2.5, None, True, 'é'], 'b': (70000, -1, 2**40)}`.
#[test]
fn every_protocol_of_python_is_read() {
    let expected = serde_json::json!({"a": [1, -2.5, null, true, "é"], "b": [70000, -1, 1_099_511_627_776_i64]});
    let pickles: [&[u8]; 3] = [
        b"(dp0\nVa\np1\n(lp2\nI1\naF-2.5\naNaI01\naV\xc3\xa9\np3\nasVb\np4\n(I70000\nI-1\nL1099511627776L\ntp5\ns.",
        b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01G\xc0\x04\x00\x00\x00\x00\x00\x00N\x88X\x02\x00\x00\x00\xc3\xa9q\x03eX\x01\x00\x00\x00bq\x04Jp\x11\x01\x00J\xff\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x87q\x05u.",
        b"\x80\x05\x95=\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G\xc0\x04\x00\x00\x00\x00\x00\x00N\x88\x8c\x02\xc3\xa9\x94e\x8c\x01b\x94Jp\x11\x01\x00J\xff\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x87\x94u.",
    ];
    for bytes in pickles {
        assert_eq!(expected, json(bytes));
    }
}

#[test]
fn what_is_written_reads_back() {
    let value = Py::Dict(vec![
        (
            "whole".into(),
            Py::List(vec![Py::Int(3), Py::Int(-1), Py::Int(1 << 40)]),
        ),
        (
            "other".into(),
            Py::Tuple(vec![Py::Float(0.5), Py::None, Py::Bool(true)]),
        ),
        ("empty".into(), Py::EmptyOrderedDict),
        ("set".into(), Py::EmptySet),
    ]);
    let expected = serde_json::json!({
        "whole": [3, -1, 1_099_511_627_776_i64], "other": [0.5, null, true], "empty": {}, "set": [],
    });
    assert_eq!(expected, json(&write(&value)));
}

#[test]
fn functions_that_might_do_harm_are_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("posix", "system"),
        ("modelsx", "A"),
        ("torch", "load"),
    ] {
        let bytes = format!("c{module}\n{name}\n(Vecho\ntR.");
        let error = read(bytes.as_bytes()).expect_err("refused");
        let (module, name) = (module.to_owned(), name.to_owned());
        assert_eq!(PickleError::Forbidden { module, name }, error);
    }
    // The same by two texts.
    let stacked = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.";
    assert!(matches!(read(stacked), Err(PickleError::Forbidden { .. })));
}

#[test]
fn damaged_pickles_are_refused_with_the_place() {
    let text = |bytes: &[u8]| read(bytes).expect_err("refused").to_string();
    assert!(text(b"\x80\x02X\xff\xff\xff\xffa").contains("byte 2"));
    assert!(text(b"\x80\x02\xfa.").contains("unknown instruction 0xfa at byte 2"));
    assert!(text(b"\x80\x02s.").contains("byte 2"));
    assert!(text(b"(0.").contains("needs a value"));
    assert!(text(b"h\x07.").contains("refers to a value that is not there"));
    assert!(text(b"").contains("cut off"));
}

#[test]
fn values_that_contain_themselves_or_grow_without_end_are_harmless() {
    // A list that is its own element.
    let pickle = read(b"]q\x00h\x00a.").expect("valid in Python too");
    assert_eq!(None, pickle.to_json(pickle.root()));
    // Each list holds the one before ten times: 10^30 elements when written out.
    let mut bytes = b"]q\x00".to_vec();
    for _ in 0..30 {
        bytes.extend(b"](");
        bytes.extend(b"h\x00".repeat(10));
        bytes.extend(b"eq\x00");
    }
    bytes.push(b'.');
    let pickle = read(&bytes).expect("few instructions");
    assert_eq!(None, pickle.to_json(pickle.root()));
    // A key of a megabyte is one value in the file, but one for each dictionary when written out.
    let key = vec![b'k'; 1 << 20];
    let length = (key.len() as u32).to_le_bytes();
    let dictionaries = |count| {
        let all = [
            b"](}q\x00X",
            &length[..],
            &key,
            b"Ns",
            &b"h\x00".repeat(count),
            b"e.",
        ]
        .concat();
        let pickle = read(&all).expect("few instructions");
        pickle.to_json(pickle.root())
    };
    assert!(dictionaries(0).is_some());
    assert_eq!(None, dictionaries(1));
    // More values than any file needs.
    let many = b"N".repeat(MAX_VALUES + 1);
    assert_eq!(Err(PickleError::TooLarge), read(&many));
}
