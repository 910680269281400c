#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ceto_model::CqlType;
use ceto_model::schema::FunctionDefinition;
use ceto_model::value::{format_literal, json};

use crate::error::FunctionError;
use crate::limits::{WASM_FUEL_MAX, WASM_MEMORY_MAX};
use crate::programs::Programs;
use crate::runner::Runner;

/// `f` returns its argument, which the host has put into pages of its own.
const SAME_1: &str = r#"(module
    (memory (export "memory") 1)
    (global (export "_scylla_abi") i32 (i32.const 1024))
    (data (i32.const 1024) "\01\00\00\00")
    (func (export "f") (param i64) (result i64) (local.get 0)))"#;

/// `f` returns its argument, which it has made room for; `live` says for how many results at once.
const SAME_2: &str = r#"(module
    (memory (export "memory") 1)
    (global (export "_scylla_abi") i32 (i32.const 1024))
    (data (i32.const 1024) "\02\00\00\00")
    (global $live (mut i32) (i32.const 0))
    (func (export "_scylla_malloc") (param i32) (result i32)
        (global.set $live (i32.add (global.get $live) (i32.const 1)))
        (i32.const 2048))
    (func (export "_scylla_free") (param i32)
        (if (i32.ne (local.get 0) (i32.const 2048)) (then (unreachable)))
        (global.set $live (i32.sub (global.get $live) (i32.const 1))))
    (func (export "f") (param i64) (result i64)
        (if (i32.gt_s (global.get $live) (i32.const 1)) (then (unreachable)))
        (local.get 0)))"#;

struct Signature {
    arguments: Vec<CqlType>,
    result: CqlType,
    called_on_null: bool,
}

/// RETURNS NULL ON NULL INPUT.
fn strict(arguments: &[CqlType], result: CqlType) -> Signature {
    Signature {
        arguments: arguments.to_vec(),
        result,
        called_on_null: false,
    }
}

/// CALLED ON NULL INPUT.
fn called(arguments: &[CqlType], result: CqlType) -> Signature {
    Signature {
        called_on_null: true,
        ..strict(arguments, result)
    }
}

fn function(signature: &Signature, name: &str, body: &str) -> Arc<FunctionDefinition> {
    Arc::new(FunctionDefinition {
        keyspace: "k".into(),
        name: name.into(),
        argument_names: (0..signature.arguments.len())
            .map(|index| format!("a{index}").as_str().into())
            .collect(),
        argument_types: signature.arguments.clone(),
        return_type: signature.result.clone(),
        called_on_null: signature.called_on_null,
        language: "wasm".into(),
        body: body.into(),
    })
}

fn compiled(functions: &[&FunctionDefinition]) -> Result<Programs, FunctionError> {
    let failure = RefCell::new(None);
    let programs = Programs::default().compile(functions.iter().copied(), |_, error| {
        failure.replace(Some(error));
    });
    failure.take().map_or(Ok(programs), Err)
}

fn runner(function: &FunctionDefinition) -> Result<Runner, FunctionError> {
    #[allow(clippy::disallowed_methods)] // long enough for any machine
    let runner = Runner::new(Duration::from_secs(60), Rc::new(Instant::now));
    runner.install(Arc::new(compiled(&[function])?));
    Ok(runner)
}

fn wire(cql_type: &CqlType, text: &str) -> Option<Bytes> {
    let parsed = json::from_json_text(cql_type, text).unwrap();
    parsed.map(|value| value.to_wire(cql_type).unwrap().into())
}

/// The result as a literal.
fn run(signature: &Signature, body: &str, arguments: &[&str]) -> Result<String, FunctionError> {
    let definition = function(signature, "f", body);
    let types = definition.argument_types.iter();
    let values: Vec<_> = types
        .zip(arguments)
        .map(|(cql_type, text)| wire(cql_type, text))
        .collect();
    let result = runner(&definition)?.run(&definition, &values)?;
    Ok(result.map_or("null".to_owned(), |wire| {
        format_literal(&signature.result, &wire).unwrap()
    }))
}

/// Why a function without arguments that returns an int is refused.
fn refused(body: &str) -> String {
    let definition = function(&strict(&[], CqlType::Int), "f", body);
    compiled(&[&definition]).err().unwrap().to_string()
}

#[test]
fn numbers_are_passed_as_numbers() {
    let cases = [
        (CqlType::Boolean, "i32", "true"),
        (CqlType::Tinyint, "i32", "-5"),
        (CqlType::Smallint, "i32", "-500"),
        (CqlType::Int, "i32", "-70000"),
        (CqlType::Bigint, "i64", "-9007199254740993"),
        (CqlType::Float, "f32", "1.5"),
        (CqlType::Double, "f64", "0.1"),
    ];
    for (cql_type, wasm, text) in cases {
        let same =
            format!("(module (func (export \"f\") (param {wasm} {wasm}) (result {wasm}) (local.get 1)))");
        let signature = strict(&[cql_type.clone(), cql_type.clone()], cql_type.clone());
        let empty = if wasm == "i32" && text == "true" {
            "false"
        } else {
            "7"
        };
        assert_eq!(
            run(&signature, &same, &[empty, text]).unwrap(),
            text,
            "{cql_type:?}"
        );
    }
    let constant = |result, number| {
        let body = format!("(module (func (export \"f\") (result i32) (i32.const {number})))");
        run(&strict(&[], result), &body, &[]).unwrap()
    };
    assert_eq!(constant(CqlType::Tinyint, 257), "1");
    assert_eq!(constant(CqlType::Smallint, 65_535), "-1");
    assert_eq!(constant(CqlType::Boolean, 4), "true");
}

#[test]
fn a_number_that_is_empty_is_null() {
    let body = r#"(module (func (export "f") (param i32) (result i32) (unreachable)))"#;
    let definition = function(&strict(&[CqlType::Int], CqlType::Int), "f", body);
    let result = runner(&definition)
        .unwrap()
        .run(&definition, &[Some(Bytes::new())]);
    assert_eq!(result, Ok(None));
}

#[test]
fn everything_else_is_passed_in_memory() {
    let list = CqlType::List {
        element: Arc::new(CqlType::Text),
        frozen: true,
    };
    let cases = [
        (CqlType::Text, "\"grün\"", "'grün'"),
        (CqlType::Text, "\"\"", "''"),
        (CqlType::Blob, "\"0x00ff\"", "0x00ff"),
        (
            CqlType::Varint,
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        (list, "[\"a\", \"\"]", "['a', '']"),
    ];
    for body in [SAME_1, SAME_2] {
        for (cql_type, text, literal) in &cases {
            let same = strict(std::slice::from_ref(cql_type), cql_type.clone());
            assert_eq!(run(&same, body, &[text]).unwrap(), *literal, "{cql_type:?}");
        }
        let null = called(&[CqlType::Int], CqlType::Int);
        assert_eq!(run(&null, body, &["12"]).unwrap(), "12");
        assert_eq!(run(&null, body, &["null"]).unwrap(), "null");
    }
}

#[test]
fn sizes_and_bytes_are_as_documented() {
    // The sum of two ints, either of which may be null; numbers are big-endian in memory.
    let body = r#"(module
        (memory (export "memory") 1)
        (global (export "_scylla_abi") i32 (i32.const 0))
        (data (i32.const 0) "\01\00\00\00")
        (func $last_byte (param i64) (result i32)
            (if (result i32) (i32.ne (i32.wrap_i64 (i64.shr_s (local.get 0) (i64.const 32))) (i32.const 4))
                (then (i32.const 100))
                (else (i32.load8_u offset=3 (i32.wrap_i64 (local.get 0))))))
        (func (export "f") (param i64 i64) (result i64)
            (i32.store (i32.const 8) (i32.const 0))
            (i32.store8 (i32.const 11) (i32.add (call $last_byte (local.get 0)) (call $last_byte (local.get 1))))
            (i64.const 0x400000008)))"#;
    let sum = called(&[CqlType::Int, CqlType::Int], CqlType::Int);
    assert_eq!(run(&sum, body, &["3", "4"]).unwrap(), "7");
    assert_eq!(run(&sum, body, &["null", "4"]).unwrap(), "104");
}

#[test]
fn base64_of_the_binary_form_does_too() {
    let wat =
        r#"(module (func (export "f") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3))))"#;
    let mut body = STANDARD.encode(wat::parse_str(wat).unwrap());
    body.insert(20, '\n');
    let triple = strict(&[CqlType::Int], CqlType::Int);
    assert_eq!(run(&triple, &body, &["14"]).unwrap(), "42");
    assert!(refused(&body[..body.len() - 3]).contains("no base64 of a WebAssembly module"));
    assert!(refused("AGFzbQEAAAABBAFgAAADAgEA").contains("the body is no WebAssembly module"));
}

#[test]
fn a_shard_stops_what_takes_too_much() {
    let int = strict(&[], CqlType::Int);
    let steps = FunctionError::Steps { limit: WASM_FUEL_MAX };
    let memory = FunctionError::Memory {
        limit: WASM_MEMORY_MAX,
    };
    let trap = |text: &str| FunctionError::Failed(format!("trap: {text}"));
    let cases = [
        ("(loop $l (br $l)) (i32.const 0)", steps.clone()),
        (
            "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l)) (i32.const 0)",
            steps,
        ),
        (
            "(loop $l (drop (memory.grow (i32.const 1))) (br $l)) (i32.const 0)",
            memory,
        ),
        ("(call $f)", trap("call stack exhausted")),
        ("(unreachable)", trap("wasm `unreachable` instruction executed")),
        (
            "(i32.div_s (i32.const 1) (i32.const 0))",
            trap("integer divide by zero"),
        ),
        (
            "(i32.load (i32.const 65535))",
            trap("out of bounds memory access"),
        ),
    ];
    for (instructions, error) in cases {
        let body = format!(
            "(module (memory (export \"memory\") 1) (func $f (export \"f\") (result i32) {instructions}))"
        );
        assert_eq!(run(&int, &body, &[]), Err(error), "{instructions}");
    }
}

#[test]
fn what_fuel_does_not_count_is_stopped_by_the_clock() {
    // Each call clears many locals, for little fuel.
    let locals = "i64 ".repeat(4_000);
    let body = format!(
        "(module (func $g (local {locals})) (func (export \"f\") (result i32) (loop $l (call $g) (br $l)) (i32.const 0)))"
    );
    let definition = function(&strict(&[], CqlType::Int), "f", &body);
    let (limit, ticks) = (Duration::from_millis(100), std::cell::Cell::new(0));
    #[allow(clippy::disallowed_methods)] // any instant does
    let epoch = Instant::now();
    // A clock by which each look takes a millisecond.
    let now = move || {
        ticks.set(ticks.get() + 1);
        epoch + Duration::from_millis(ticks.get())
    };
    let runner = Runner::new(limit, Rc::new(now));
    runner.install(Arc::new(compiled(&[&definition]).unwrap()));
    assert_eq!(runner.run(&definition, &[]), Err(FunctionError::Time { limit }));
}

#[test]
fn what_would_run_or_recurse_when_a_module_is_loaded_is_refused() {
    let start =
        r#"(module (func $s (loop $l (br $l))) (start $s) (func (export "f") (result i32) (i32.const 0)))"#;
    assert!(refused(start).contains("start"), "{}", refused(start));
    let deep = format!(
        "(module (global i32 (i32.const 0) {}) (func (export \"f\") (result i32) (i32.const 0)))",
        "(i32.const 1) i32.add ".repeat(30_000)
    );
    let refusal = refused(&deep);
    assert!(refusal.contains("constant expression"), "{refusal}");
}

#[test]
fn a_memory_is_exported_and_begins_small() {
    let with = |memory: &str| format!("(module {memory} (func (export \"f\") (result i32) (i32.const 0)))");
    assert!(refused(&with("(memory 1)")).contains("exported as 'memory'"));
    assert!(refused(&with("(memory (export \"memory\") 33)")).contains("may begin with 2048 KiB"));
    assert!(refused(&with("(memory (export \"memory\") 1000)")).contains("within its limits"));
    let int = strict(&[], CqlType::Int);
    assert_eq!(
        run(&int, &with("(memory (export \"memory\") 32)"), &[]),
        Ok("0".to_owned())
    );
}

#[test]
fn a_module_has_so_many_functions_at_most() {
    let body = format!(
        "(module {} (func (export \"f\") (result i32) (i32.const 0)))",
        "(func)".repeat(20_000)
    );
    assert!(refused(&body).contains("limit"), "{}", refused(&body));
}

#[test]
fn a_result_must_be_of_its_type() {
    let place = |size: i64, address: i64| {
        SAME_1.replace("(local.get 0)", &format!("(i64.const {})", size << 32 | address))
    };
    let text = strict(&[CqlType::Text], CqlType::Text);
    let failed = |body: &str, signature: &Signature| match run(signature, body, &["\"abc\""]) {
        Err(FunctionError::Result(text)) => text,
        other => panic!("{other:?}"),
    };
    assert!(failed(&place(4, 1 << 20), &text).contains("not in the module's memory"));
    assert!(failed(&place(-2, 0), &text).contains("not in the module's memory"));
    assert!(failed(&place(0x7fff_ffff, 0xffff_ffff), &text).contains("not in the module's memory"));
    let int = called(&[CqlType::Text], CqlType::Int);
    assert!(failed(&place(3, 0), &int).contains("3"));
    assert_eq!(run(&int, &place(-1, 0), &["\"abc\""]).unwrap(), "null");
}

#[test]
fn what_a_module_lacks_is_said_when_it_is_created() {
    let cases = [
        (
            "return 1",
            "neither WebAssembly text nor base64 of a module: expected `(` at line 1, column 1",
        ),
        ("(module (func (export \"g\")))", "exports no function 'f'"),
        (
            "(module (func (export \"f\") (param f32) (result i64) (i64.const 0)))",
            "'f' is (f32) -> (i64), but RETURNS NULL ON NULL INPUT and the CQL types ask for () -> (i32)",
        ),
        (
            "(module (import \"env\" \"now\" (func)) (func (export \"f\") (result i32) (i32.const 0)))",
            "imports 'now' of 'env'",
        ),
        (
            "(module (func (export \"f\") (result i32) (i64.const 0)))",
            "no WebAssembly module: type mismatch",
        ),
        (
            "(module (memory 257) (func (export \"f\") (result i32) (i32.const 0)))",
            "within its limits",
        ),
    ];
    for (body, expected) in cases {
        let text = refused(body);
        assert!(text.contains(expected), "{text}");
    }
    let in_memory = |body: &str| {
        let definition = function(&strict(&[CqlType::Text], CqlType::Text), "f", body);
        compiled(&[&definition]).err().unwrap().to_string()
    };
    assert!(
        in_memory(&SAME_1.replace("\"memory\"", "\"m\"")).contains("a memory that is exported as 'memory'")
    );
    assert!(in_memory(&SAME_1.replace("_scylla_abi", "abi")).contains("global '_scylla_abi' of type i32"));
    assert!(in_memory(&SAME_1.replace("\\01", "\\03")).contains("by version 3"));
    assert!(
        in_memory(&SAME_1.replace("(i32.const 1024))\n", "(i32.const 65536))\n"))
            .contains("not in the module's memory")
    );
    assert!(
        in_memory(&SAME_2.replace("_scylla_free", "free")).contains("function '_scylla_free' (i32) -> ()")
    );
}

#[test]
fn instances_are_kept_and_made_anew_when_they_are_large() {
    let text = strict(&[CqlType::Text], CqlType::Text);
    for body in [SAME_1, SAME_2] {
        let definition = function(&text, "f", body);
        let runner = runner(&definition).unwrap();
        for size in [3, 0, 30_000, 5] {
            let argument = Some(Bytes::from("x".repeat(size)));
            assert_eq!(
                runner.run(&definition, std::slice::from_ref(&argument)),
                Ok(argument)
            );
        }
        assert_eq!((runner.figures().made, runner.figures().failures), (1, 0));
    }
    // Each call leaves a page that it does not give back.
    let growing = SAME_1.replace(
        "(local.get 0)",
        "(drop (memory.grow (i32.const 1))) (local.get 0)",
    );
    let definition = function(&text, "f", &growing);
    let runner = runner(&definition).unwrap();
    for _ in 0..1000 {
        let argument = Some(Bytes::from_static(b"abc"));
        assert_eq!(
            runner.run(&definition, std::slice::from_ref(&argument)),
            Ok(argument)
        );
    }
    assert_eq!(runner.figures().kept, 1);
    let large = Some(Bytes::from(vec![b'x'; WASM_MEMORY_MAX]));
    let failed = runner.run(&definition, &[large]);
    assert!(matches!(failed, Err(FunctionError::Memory { .. })), "{failed:?}");
    assert_eq!(runner.figures().kept, 0);
}

#[test]
fn functions_share_a_body() {
    let body = r#"(module
        (func (export "one") (result i32) (i32.const 1))
        (func (export "two") (result i32) (i32.const 2)))"#;
    let int = strict(&[], CqlType::Int);
    let (one, two) = (function(&int, "one", body), function(&int, "two", body));
    let programs = compiled(&[&one, &two]).unwrap();
    assert_eq!(programs.count(), 1);
    #[allow(clippy::disallowed_methods)] // long enough for any machine
    let runner = Runner::new(Duration::from_secs(60), Rc::new(Instant::now));
    runner.install(Arc::new(programs));
    assert_eq!(runner.run(&one, &[]), Ok(wire(&CqlType::Int, "1")));
    assert_eq!(runner.run(&two, &[]), Ok(wire(&CqlType::Int, "2")));
}

/// Whatever the bytes are, there is an error or a result.
#[test]
fn damaged_modules_are_refused_or_run_within_their_limits() {
    let binary = wat::parse_str(SAME_2).unwrap();
    let text = strict(&[CqlType::Text], CqlType::Text);
    let mut ran = 0;
    for place in 0..binary.len() {
        for change in [1_u8, 0x80, 0xff] {
            let mut damaged = binary.clone();
            damaged[place] ^= change;
            let definition = function(&text, "f", &STANDARD.encode(&damaged));
            if let Ok(runner) = runner(&definition) {
                ran += 1;
                let _ = runner.run(&definition, &[Some(Bytes::from_static(b"abc"))]);
            }
        }
    }
    assert!(ran > 10, "{ran}");
}
