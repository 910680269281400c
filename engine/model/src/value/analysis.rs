//! Text as storage-attached indexes compare it, when they are told to.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Canonical composition (NFC): letters with their accents are one character each, however they were written.
pub fn normalized(text: &str) -> String {
    text.nfc().collect()
}

/// Letters, digits and signs beyond ASCII as those of ASCII that stand for them; what has none stays.
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
            continue;
        }
        if let Some(letters) = letters_of(character) {
            out.push_str(letters);
            continue;
        }
        let decomposed: String = std::iter::once(character).nfkd().collect();
        let kept: String = decomposed
            .chars()
            .filter(|part| !is_combining_mark(*part))
            .collect();
        let is_ascii = kept.is_ascii() && !kept.is_empty();
        match is_ascii {
            true => out.push_str(&kept),
            false => out.push(character),
        }
    }
    out
}

/// Letters that Unicode does not take apart.
fn letters_of(character: char) -> Option<&'static str> {
    Some(match character {
        'Æ' => "AE",
        'æ' => "ae",
        'Œ' => "OE",
        'œ' => "oe",
        'Ø' => "O",
        'ø' => "o",
        'Ł' => "L",
        'ł' => "l",
        'Đ' | 'Ð' => "D",
        'đ' | 'ð' => "d",
        'Þ' => "TH",
        'þ' => "th",
        'ß' => "ss",
        'ı' => "i",
        'Ħ' => "H",
        'ħ' => "h",
        'Ŧ' => "T",
        'ŧ' => "t",
        '‘' | '’' | '‚' | '′' => "'",
        '“' | '”' | '„' | '″' | '«' | '»' => "\"",
        '‐' | '‑' | '‒' | '–' | '—' => "-",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_composed_and_folded() {
        assert_eq!(normalized("Cafe\u{301}"), "Café");
        assert_eq!(folded("Éàüß Łódź œ ½ 漢"), "Eauss Lodz oe ½ 漢");
    }
}
