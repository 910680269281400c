#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ceto_model::schema::FunctionDefinition;
use ceto_model::types::{UserType, UserTypeField};
use ceto_model::value::{format_literal, json};
use ceto_model::{CqlType, Value};

use crate::error::FunctionError;
use crate::limits::{LUA_MEMORY_MAX, LUA_STEPS_MAX};
use crate::programs::Programs;
use crate::runner::Runner;

fn function(arguments: &[(&str, CqlType)], return_type: CqlType, body: &str) -> Arc<FunctionDefinition> {
    Arc::new(FunctionDefinition {
        keyspace: "k".into(),
        name: "f".into(),
        argument_names: arguments.iter().map(|(name, _)| (*name).into()).collect(),
        argument_types: arguments.iter().map(|(_, cql_type)| cql_type.clone()).collect(),
        return_type,
        called_on_null: true,
        language: "lua".into(),
        body: body.into(),
    })
}

fn real_clock() -> Rc<dyn Fn() -> Instant> {
    #[allow(clippy::disallowed_methods)] // what is tested is real time
    Rc::new(Instant::now)
}

fn runner() -> Runner {
    Runner::new(Duration::from_secs(60), real_clock())
}

/// The result as a literal.
fn run(
    arguments: &[(&str, CqlType, &str)],
    return_type: CqlType,
    body: &str,
) -> Result<String, FunctionError> {
    let signature: Vec<_> = arguments
        .iter()
        .map(|(name, cql_type, _)| (*name, cql_type.clone()))
        .collect();
    let definition = function(&signature, return_type.clone(), body);
    Programs::check(&definition)?;
    let values: Vec<Option<Bytes>> = arguments
        .iter()
        .map(|(_, cql_type, text)| {
            let parsed = json::from_json_text(cql_type, text).unwrap();
            parsed.map(|value| value.to_wire(cql_type).unwrap().into())
        })
        .collect();
    let result = runner().run(&definition, &values)?;
    Ok(result.map_or("null".to_owned(), |wire| {
        format_literal(&return_type, &wire).unwrap()
    }))
}

fn returned(return_type: CqlType, body: &str) -> Result<String, FunctionError> {
    run(&[], return_type, body)
}

fn list(element: CqlType) -> CqlType {
    CqlType::List {
        element: Arc::new(element),
        frozen: true,
    }
}

fn set(element: CqlType) -> CqlType {
    CqlType::Set {
        element: Arc::new(element),
        frozen: true,
    }
}

fn map(key: CqlType, value: CqlType) -> CqlType {
    CqlType::Map {
        key: Arc::new(key),
        value: Arc::new(value),
        frozen: true,
    }
}

fn address() -> CqlType {
    let field = |name: &str, cql_type| UserTypeField {
        name: name.into(),
        cql_type,
    };
    CqlType::Udt {
        definition: Arc::new(UserType {
            keyspace: "k".into(),
            name: "address".into(),
            fields: vec![field("street", CqlType::Text), field("number", CqlType::Int)],
        }),
        frozen: true,
    }
}

#[test]
fn every_type_goes_in_and_comes_out() {
    let cases = [
        (CqlType::Text, "\"grün\"", "'grün'"),
        (CqlType::Ascii, "\"a\"", "'a'"),
        (CqlType::Blob, "\"0x00ff\"", "0x00ff"),
        (CqlType::Boolean, "true", "true"),
        (CqlType::Tinyint, "-5", "-5"),
        (CqlType::Smallint, "-500", "-500"),
        (CqlType::Int, "70000", "70000"),
        (CqlType::Bigint, "9007199254740993", "9007199254740993"),
        (CqlType::Float, "1.5", "1.5"),
        (CqlType::Double, "0.1", "0.1"),
        (
            CqlType::Varint,
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        ),
        (CqlType::Decimal, "1.50", "1.50"),
        (CqlType::Date, "\"2024-02-29\"", "'2024-02-29'"),
        (CqlType::Time, "\"01:02:03.000000004\"", "'01:02:03.000000004'"),
        (CqlType::Timestamp, "0", "'1970-01-01T00:00:00.000Z'"),
        (CqlType::Duration, "\"1mo2d3ns\"", "1mo2d3ns"),
        (CqlType::Inet, "\"::1\"", "'::1'"),
        (
            CqlType::Uuid,
            "\"6fddbe9c-0000-4000-8000-000000000001\"",
            "6fddbe9c-0000-4000-8000-000000000001",
        ),
        (list(CqlType::Int), "[3, 1]", "[3, 1]"),
        (set(CqlType::Text), "[\"b\", \"a\"]", "{'a', 'b'}"),
        (
            map(CqlType::Text, CqlType::Int),
            "{\"b\": 2, \"a\": 1}",
            "{'a': 1, 'b': 2}",
        ),
        (
            CqlType::Tuple([CqlType::Int, CqlType::Text, CqlType::Int].into()),
            "[1, null, 3]",
            "(1, null, 3)",
        ),
        (
            address(),
            "{\"street\": \"x\", \"number\": null}",
            "{street: 'x', number: null}",
        ),
        (list(list(CqlType::Varint)), "[[1], []]", "[[1], []]"),
        (
            CqlType::Vector {
                element: Arc::new(CqlType::Float),
                dimension: 2,
            },
            "[1.0, 2.0]",
            "[1.0, 2.0]",
        ),
    ];
    for (cql_type, json, literal) in cases {
        let result = run(&[("v", cql_type.clone(), json)], cql_type.clone(), "return v");
        assert_eq!(result.as_deref(), Ok(literal), "{cql_type}");
        let nothing = run(&[("v", cql_type.clone(), "null")], cql_type.clone(), "return v");
        assert_eq!(nothing.as_deref(), Ok("null"), "{cql_type}");
    }
}

#[test]
fn values_are_coerced_as_lua_does() {
    let cases = [
        (CqlType::Bigint, "return 42.0", "42"),
        (CqlType::Bigint, "return '42'", "42"),
        (CqlType::Int, "return 2^32 + 5", "5"),
        (CqlType::Tinyint, "return 200", "-56"),
        (CqlType::Double, "return '1.5'", "1.5"),
        (CqlType::Double, "return 1", "1.0"),
        (CqlType::Text, "return 7", "'7'"),
        (CqlType::Varint, "return 2^70", "1180591620717411303424"),
        (CqlType::Decimal, "return '1.10'", "1.10"),
        (
            CqlType::Date,
            "return {year = 2024, month = 2, day = 29}",
            "'2024-02-29'",
        ),
        (CqlType::Date, "return 2^31 | 0", "'1970-01-01'"),
        (
            CqlType::Timestamp,
            "return '1970-01-01T00:00:01Z'",
            "'1970-01-01T00:00:01.000Z'",
        ),
        (
            CqlType::Duration,
            "return {months = 1, days = 0, nanoseconds = 5}",
            "1mo5ns",
        ),
        (set(CqlType::Int), "return {[2] = true, [1] = true}", "{1, 2}"),
        (CqlType::Int, "return nil", "null"),
        (CqlType::Int, "", "null"),
    ];
    for (cql_type, body, literal) in cases {
        assert_eq!(returned(cql_type, body).as_deref(), Ok(literal), "{body}");
    }
}

#[test]
fn results_of_other_types_are_errors() {
    let cases = [
        (CqlType::Int, "return 'x'"),
        (CqlType::Int, "return 1.5"),
        (CqlType::Int, "return {}"),
        (CqlType::Int, "return true"),
        (CqlType::Int, "return 0/0"),
        (CqlType::Boolean, "return 1"),
        (CqlType::Text, "return '\\xff'"),
        (CqlType::Ascii, "return '\\xc3\\xa9'"),
        (CqlType::Text, "return print"),
        (CqlType::Uuid, "return 'no'"),
        (CqlType::Inet, "return '1.2.3'"),
        (CqlType::Date, "return -1"),
        (CqlType::Date, "return {year = 2024, month = 13, day = 1}"),
        (
            CqlType::Duration,
            "return {months = 1, days = -1, nanoseconds = 0}",
        ),
        (list(CqlType::Int), "return {1, nil, 3}"),
        (list(CqlType::Int), "return {x = 1}"),
        (list(CqlType::Int), "return {1, 'x'}"),
        (set(CqlType::Int), "return {1, 2}"),
        (address(), "return {street = 'x', town = 'y'}"),
        (address(), "return {street = 'x', number = 'y'}"),
        (CqlType::Tuple([CqlType::Int].into()), "return {1, 2}"),
    ];
    for (cql_type, body) in cases {
        let result = returned(cql_type.clone(), body);
        let is_refused = match body {
            // There is no print to return.
            "return print" => result.as_deref() == Ok("null"),
            _ => matches!(result, Err(FunctionError::Result(_))),
        };
        assert!(is_refused, "{cql_type}: {body}: {result:?}");
    }
}

#[test]
fn large_numbers_have_arithmetic() {
    let number = |text: &'static str| ("v", CqlType::Varint, text);
    let big = "100000000000000000000";
    let cases = [
        ("return v + 1", "100000000000000000001"),
        ("return 1 - v", "-99999999999999999999"),
        ("return v * v", "10000000000000000000000000000000000000000"),
        ("return v // 3", "33333333333333333333"),
        ("return -v % 7", "5"),
        ("return v > 5 and v < v + 1 and 1 or 0", "1"),
        ("return v == v + 0 and 1 or 0", "1"),
        ("return #tostring(v)", "21"),
    ];
    for (body, expected) in cases {
        assert_eq!(
            run(&[number(big)], CqlType::Varint, body).as_deref(),
            Ok(expected),
            "{body}"
        );
    }
    let decimal = ("v", CqlType::Decimal, "1.25");
    assert_eq!(
        run(std::slice::from_ref(&decimal), CqlType::Decimal, "return v / 2").as_deref(),
        Ok("0.625")
    );
    let divided = run(&[decimal], CqlType::Decimal, "return v / 0");
    assert_eq!(
        divided,
        Err(FunctionError::Failed("attempt to divide by zero".to_owned()))
    );
}

#[test]
fn nothing_leads_out() {
    for name in [
        "os",
        "io",
        "debug",
        "package",
        "coroutine",
        "require",
        "load",
        "loadstring",
        "dofile",
        "loadfile",
        "print",
        "pcall",
        "xpcall",
        "setmetatable",
        "getmetatable",
        "collectgarbage",
        "warn",
        "_G",
        "rawset",
        "string.dump",
        "math.random",
    ] {
        let body = format!("return {name} == nil");
        assert_eq!(returned(CqlType::Boolean, &body).as_deref(), Ok("true"), "{name}");
    }
    let binary = returned(CqlType::Int, "\u{1b}Lua");
    assert!(matches!(binary, Err(FunctionError::Body(_))), "{binary:?}");
}

#[test]
fn globals_last_for_one_call() {
    let counter = function(&[], CqlType::Int, "n = (n or 0) + 1 return n");
    let runner = runner();
    for _ in 0..3 {
        assert_eq!(
            runner.run(&counter, &[]).unwrap().unwrap(),
            1_i32.to_be_bytes().as_slice()
        );
    }
    assert_eq!((runner.figures().made, runner.figures().kept), (1, 1));
}

#[test]
fn errors_say_where_and_what() {
    let failed = returned(CqlType::Int, "local x = 1\nerror('out of paper')");
    assert_eq!(failed, Err(FunctionError::Failed("f:2: out of paper".to_owned())));
    let failed = returned(CqlType::Int, "return nil + 1");
    let text = failed.unwrap_err().to_string();
    assert!(
        text.starts_with("f:1: attempt to perform arithmetic on a nil value"),
        "{text}"
    );
    let syntax = returned(CqlType::Int, "return (").unwrap_err();
    assert!(
        matches!(&syntax, FunctionError::Body(text) if text.contains("unexpected symbol")),
        "{syntax:?}"
    );
    let name = function(&[("end", CqlType::Int)], CqlType::Int, "return 1");
    assert!(
        Programs::check(&name)
            .unwrap_err()
            .to_string()
            .contains("'end' cannot be a local variable")
    );
}

#[test]
fn what_runs_for_ever_is_stopped() {
    let steps = Err(FunctionError::Steps { limit: LUA_STEPS_MAX });
    let bodies = [
        "while true do end",
        "local function f() return f() end return f()",
        "for i = 1, math.huge do end",
        "return (string.rep('a', 40)):find(string.rep('a*', 20) .. 'b')",
        "return (string.rep('a', 1000000)):find(string.rep('a', 500000) .. 'b', 1, true)",
        "local t = {} for i = 1, 20000 do t[i] = -i end table.sort(t) return 1",
        "local t = {} for i = 1, 100000 do table.insert(t, 1, i) end return 1",
        "return table.move({}, 1, 1 << 60, 2)",
        "local s = string.rep('x', 1000) for i = 1, 1000000 do s = s:gsub('x', 'x') end return 1",
        "for _ in ('x'):gmatch('') do end while true do end",
    ];
    for body in bodies {
        assert_eq!(returned(CqlType::Int, body), steps, "{body}");
    }
}

#[test]
fn what_wants_all_memory_is_stopped() {
    let bodies = [
        "local s = 'x' while true do s = s .. s end",
        "return string.rep('x', 1 << 40)",
        "local t = {} for i = 1, 10000000 do t[i] = i end",
        "local function f() return 1 + f() end return f()",
        "return (string.rep('x', 2000)):gsub('x', string.rep('y', 4000))",
        "return table.unpack({}, 1, 100000000)",
        "return string.format('%s', string.rep('x', 100000000))",
    ];
    for body in bodies {
        let result = returned(CqlType::Text, body);
        let is_stopped = match &result {
            Err(FunctionError::Memory { limit }) => *limit == LUA_MEMORY_MAX,
            Err(FunctionError::Failed(text)) => {
                text.contains("too many results")
                    || text.contains("too large")
                    || text.contains("stack overflow")
            }
            _ => false,
        };
        assert!(is_stopped, "{body}: {result:?}");
    }
}

#[test]
fn large_numbers_are_bounded() {
    let grown = run(
        &[("v", CqlType::Varint, "10")],
        CqlType::Varint,
        "while true do v = v * v end",
    );
    assert!(
        matches!(&grown, Err(FunctionError::Failed(text)) if text.contains("bits")),
        "{grown:?}"
    );
    let many = run(
        &[("v", CqlType::Varint, "10")],
        CqlType::Varint,
        "local t = {} while true do t[#t + 1] = v * v end",
    );
    let is_stopped = matches!(
        many,
        Err(FunctionError::Steps { .. } | FunctionError::Memory { .. })
    );
    assert!(is_stopped, "{many:?}");
    let scaled = run(
        &[("v", CqlType::Decimal, "1e1000000")],
        CqlType::Decimal,
        "return v + 1",
    );
    assert!(
        matches!(&scaled, Err(FunctionError::Failed(text)) if text.contains("bits")),
        "{scaled:?}"
    );
}

#[test]
fn a_call_ends_by_the_clock_too() {
    let time = Rc::new(Cell::new(Duration::ZERO));
    #[allow(clippy::disallowed_methods)] // any instant does
    let start = Instant::now();
    let shown = time.clone();
    let clock = move || {
        shown.set(shown.get() + Duration::from_millis(1));
        start + shown.get()
    };
    let limit = Duration::from_millis(50);
    let runner = Runner::new(limit, Rc::new(clock));
    let definition = function(&[], CqlType::Int, "for i = 1, 10000 do end return 1");
    assert_eq!(runner.run(&definition, &[]), Err(FunctionError::Time { limit }));
}

#[test]
fn a_machine_that_failed_is_not_used_again() {
    let runner = runner();
    let definition = function(
        &[("n", CqlType::Int)],
        CqlType::Int,
        "if n == 0 then error('no') end return n",
    );
    let call = |n: i32| runner.run(&definition, &[Some(n.to_be_bytes().to_vec().into())]);
    assert!(call(0).is_err());
    assert!(call(1).is_ok());
    assert!(call(2).is_ok());
    let figures = runner.figures();
    assert_eq!(
        (figures.calls, figures.failures, figures.made, figures.kept),
        (3, 1, 2, 1)
    );
}

#[test]
fn machines_kept_are_bounded() {
    let runner = runner();
    for n in 0..200 {
        let definition = function(&[], CqlType::Int, &format!("return {n}"));
        runner.run(&definition, &[]).unwrap();
    }
    assert_eq!(runner.figures().kept, crate::limits::KEPT_FUNCTIONS_MAX);
}

#[test]
fn patterns_are_those_of_lua() {
    let cases = [
        ("return ('hello world'):find('o w')", "5"),
        ("return (('key = value'):match('^(%w+)%s*=%s*(%w+)$'))", "key"),
        (
            "return select(2, ('key = value'):match('^(%w+)%s*=%s*(%w+)$'))",
            "value",
        ),
        ("return ('abc'):gsub('%w', '%0%0')", "aabbcc"),
        ("return ('hello'):gsub('', '-')", "-h-e-l-l-o-"),
        ("return ('abc'):gsub('b', {b = 'x'})", "axc"),
        (
            "return ('abc'):gsub('.', function(c) if c == 'b' then return 'y' end end)",
            "ayc",
        ),
        ("return ('f(a(b)c)d'):match('%b()')", "(a(b)c)"),
        ("return ('THE (quick) fox'):find('%f[%a]%a+%f[%A]', 5)", "6"),
        ("return ('xyzxyz'):match('(x.-)%1')", "xyz"),
        ("return ('xyxy'):match('(x.)%1')", "xy"),
        ("return ('2024-02-29'):match('%d+', 6)", "02"),
        ("return ('abc'):match('()b')", "2"),
        ("return ('a]b'):match('[]]')", "]"),
        ("return ('a-b'):match('[a%-]+')", "a-"),
        ("return ('abc'):match('[^a-b]')", "c"),
        ("return ('aXb'):gsub('%u', '')", "ab"),
        ("return ('a,b,,c'):gsub(',', ';', 2)", "a;b;,c"),
        (
            "local t = {} for w in ('one two'):gmatch('%a+') do t[#t + 1] = w end return table.concat(t, '|')",
            "one|two",
        ),
        (
            "local t = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do t[#t + 1] = k .. v end return table.concat(t, '|')",
            "a1|b2",
        ),
        ("return ('aaab'):match('a-b')", "aaab"),
        ("return ('colour'):match('colou?r')", "colour"),
        ("return ('abc'):find('c', -1)", "3"),
        ("return ('a.b'):find('.', 1, true)", "2"),
        ("return ('x'):find('y')", "null"),
        ("return ('abc'):sub(2):upper():rep(2)", "BCBC"),
    ];
    for (body, expected) in cases {
        let expected = match expected {
            "null" => expected.to_owned(),
            text => format!("'{text}'"),
        };
        assert_eq!(returned(CqlType::Text, body), Ok(expected), "{body}");
    }
    for pattern in ["%", "[a", "(a", "a)", "%1", "%f", "%b", &"()".repeat(40)] {
        let body = format!("return ('aaa'):match('{pattern}')");
        let result = returned(CqlType::Text, &body);
        assert!(
            matches!(result, Err(FunctionError::Failed(_))),
            "{pattern}: {result:?}"
        );
    }
}

#[test]
fn tables_are_sorted_and_moved_as_in_lua() {
    let numbers = |body: &str| run(&[], list(CqlType::Int), body).unwrap();
    assert_eq!(
        numbers("local t = {3, 1, 2, 5, 4} table.sort(t) return t"),
        "[1, 2, 3, 4, 5]"
    );
    assert_eq!(
        numbers("local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) return t"),
        "[3, 2, 1]"
    );
    assert_eq!(
        numbers("local t = {1, 3} table.insert(t, 2, 2) table.insert(t, 4) return t"),
        "[1, 2, 3, 4]"
    );
    assert_eq!(
        numbers("local t = {1, 2, 3} table.remove(t, 1) table.remove(t) return t"),
        "[2]"
    );
    assert_eq!(numbers("return table.move({1, 2, 3}, 2, 3, 1)"), "[2, 3, 3]");
    assert_eq!(numbers("return table.move({1, 2, 3}, 1, 2, 2)"), "[1, 1, 2]");
}

/// The worst of one call, whatever it does: what the documents state is measured here.
#[test]
fn no_call_takes_long() {
    let bodies = [
        "while true do end",
        "local s = string.rep('x', 1000000) while true do local t = s .. 'y' end",
        "local t = {} for i = 1, 100000 do t[i] = i end while true do table.concat(t) end",
        "local s = string.rep('x', 1000000) while true do s = s:reverse() end",
        "local s = string.rep('a', 500000) local t = s .. 'b' local u = s .. 'c' while true do local _ = t < u end",
    ];
    let runner = Runner::new(crate::limits::TIME_MAX, real_clock());
    let clock = real_clock();
    for body in bodies {
        let definition = function(&[], CqlType::Int, body);
        let start = clock();
        let result = runner.run(&definition, &[]);
        let took = clock().duration_since(start);
        assert!(result.is_err(), "{body}");
        println!("{took:?} {body}");
        // Ten times what is measured alone: machines that run tests are busy.
        assert!(took < crate::limits::TIME_MAX * 20, "{took:?}: {body}");
    }
}

#[test]
fn empty_values_are_null() {
    let definition = function(&[("n", CqlType::Int)], CqlType::Boolean, "return n == nil");
    let result = runner().run(&definition, &[Some(Bytes::new())]).unwrap().unwrap();
    assert_eq!(
        Value::decode(&CqlType::Boolean, &result),
        Ok(Value::Boolean(true))
    );
}
