use super::*;
use TokenKind::*;

fn scan(text: &str) -> Vec<(TokenKind, &str)> {
    let mut tokens = tokens(text).expect("few tokens");
    let end = tokens.pop().map(|token| token.kind);
    assert_eq!(end, Some(End));
    tokens
        .iter()
        .map(|token| (token.kind, &text[token.start as usize..token.end as usize]))
        .collect()
}

fn kinds(text: &str) -> Vec<TokenKind> {
    scan(text).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn numbers() {
    assert_eq!(
        scan("1 -2 1.5 1. 1e3 -1.5E-7"),
        [
            (Integer, "1"),
            (Integer, "-2"),
            (Float, "1.5"),
            (Float, "1."),
            (Float, "1e3"),
            (Float, "-1.5E-7"),
        ]
    );
    assert_eq!(
        scan("1..3 1...3"),
        [
            (Integer, "1"),
            (Range, ".."),
            (Integer, "3"),
            (Float, "1."),
            (Range, ".."),
            (Integer, "3"),
        ]
    );
    assert_eq!(
        scan("1e 1ex"),
        [
            (Integer, "1"),
            (Identifier, "e"),
            (Integer, "1"),
            (Identifier, "ex")
        ]
    );
    assert_eq!(kinds("- 1"), [Minus, Integer]);
    assert_eq!(kinds("a-1"), [Identifier, Integer]);
    assert_eq!(
        scan("0x 0xAbF 0X1g"),
        [(Hex, "0x"), (Hex, "0xAbF"), (Hex, "0X1"), (Identifier, "g")]
    );
    assert_eq!(
        kinds("NaN -nan -NaNo Infinity -infinity"),
        [
            TokenKind::Keyword(crate::lexer::Keyword::Nan),
            NegativeNan,
            Minus,
            Identifier,
            TokenKind::Keyword(crate::lexer::Keyword::Infinity),
            NegativeInfinity,
        ]
    );
}

#[test]
fn durations() {
    for text in [
        "1d",
        "-1d",
        "12h30m",
        "1y2mo3w4d5h6m7s8ms9us10ns",
        "1MO",
        "5\u{b5}s",
        "PT1H",
        "P1Y2M3DT4H5M6S",
        "P3W",
        "-P1D",
        "P0001-02-03T04:05:06",
        "PT5S",
        "P1M",
    ] {
        assert_eq!(scan(text), [(Duration, text)], "{text}");
    }
    assert_eq!(kinds("P"), [Identifier]);
    assert_eq!(kinds("PT"), [Identifier]);
    assert_eq!(kinds("P1Yx"), [Identifier]);
    assert_eq!(kinds("p1y"), [Identifier]);
    assert_eq!(kinds("-PT"), [Minus, Identifier]);
    assert_eq!(scan("1h30"), [(Duration, "1h"), (Integer, "30")]);
}

#[test]
fn uuids() {
    for text in [
        "123e4567-e89b-12d3-a456-426614174000",
        "ABCDEF01-0000-0000-0000-000000000000",
    ] {
        assert_eq!(scan(text), [(Uuid, text)]);
    }
    assert_eq!(
        scan("123e4567-e89b"),
        [(Float, "123e4567"), (Minus, "-"), (Identifier, "e89b")]
    );
    assert_eq!(scan("abcdef01-2"), [(Identifier, "abcdef01"), (Integer, "-2")]);
}

#[test]
fn strings_and_names() {
    assert_eq!(kinds("'a' '' 'it''s' ''''"), [String; 4]);
    assert_eq!(
        scan("$$a 'b' $ c$$x"),
        [(DollarString, "$$a 'b' $ c$$"), (Identifier, "x")]
    );
    assert_eq!(
        scan("\"\" \"a\"\"b\" \"\"\"\""),
        [
            (EmptyQuotedName, "\"\""),
            (QuotedName, "\"a\"\"b\""),
            (QuotedName, "\"\"\"\""),
        ]
    );
    assert_eq!(kinds("'é' é"), [String, Invalid(LexicalFault::Character)]);
    assert_eq!(kinds("'abc"), [Invalid(LexicalFault::Unterminated('\''))]);
    assert_eq!(kinds("'abc''"), [Invalid(LexicalFault::Unterminated('\''))]);
    assert_eq!(kinds("\"abc"), [Invalid(LexicalFault::Unterminated('"'))]);
    assert_eq!(kinds("$$abc$"), [Invalid(LexicalFault::Unterminated('$'))]);
    assert_eq!(kinds("$a"), [Invalid(LexicalFault::Character), Identifier]);
    assert_eq!(kinds("_a"), [Invalid(LexicalFault::Character), Identifier]);
}

#[test]
fn blanks() {
    assert_eq!(
        kinds("a -- b\n c // d\r /* e\n * */ f"),
        [Identifier, Identifier, Identifier]
    );
    assert_eq!(kinds("a --"), [Identifier]);
    assert_eq!(kinds("/* a"), [Invalid(LexicalFault::Unterminated('/'))]);
    assert_eq!(kinds("/**/a/*/*/b"), [Identifier, Identifier]);
    assert_eq!(kinds(" \t\r\n"), []);
}

#[test]
fn operators() {
    assert_eq!(
        kinds("= != < <= > >= + - * / % += -= . .. : ; , ? ( ) [ ] { }"),
        [
            Equal,
            NotEqual,
            Less,
            LessOrEqual,
            Greater,
            GreaterOrEqual,
            Plus,
            Minus,
            Star,
            Slash,
            Percent,
            PlusEqual,
            MinusEqual,
            Dot,
            Range,
            Colon,
            Semicolon,
            Comma,
            Question,
            OpenParenthesis,
            CloseParenthesis,
            OpenBracket,
            CloseBracket,
            OpenBrace,
            CloseBrace,
        ]
    );
    assert_eq!(kinds("!"), [Invalid(LexicalFault::Character)]);
}

proptest::proptest! {
    /// Tokens lie in the text in order, on character boundaries, whatever the text.
    #[test]
    fn tokens_are_ordered(text in "(?s).{0,60}|[-'\"$PTYMDHS0-9a-f./*=<>x ]{0,40}") {
        let mut previous = 0;
        for token in tokens(&text).expect("few tokens") {
            assert!(previous <= token.start && token.start <= token.end);
            assert!(text.get(token.start as usize..token.end as usize).is_some());
            previous = token.end;
        }
        assert_eq!(previous as usize, text.len());
    }
}
