"""Every CQL statement of the requirements document, with the line that it starts in.

A statement is taken, exactly as printed, from
- the blocks that are marked `cql` or `sql`: all that they hold, whatever language it turns out to be;
- the other blocks: a line that starts with a verb and its object, up to the semicolon; and strings of programs, and
  lines of output, that hold a statement;
- code in prose that is a whole statement, which has a verb, an object and a name.
Prose also shows fragments: a function's name, a primary key, a replication map. fragments() gives those; the corpus
has a statement around each.

    extract.py DOCUMENT     prints what it finds
"""

import pathlib
import re
import sys

FENCE = re.compile(r"\s*```(\w*)")
COMMENT = re.compile(r"(?:--|//)[^\n]*|/\*.*?\*/", re.DOTALL)
QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$\$.*?\$\$", re.DOTALL)
BATCH = re.compile(r"BEGIN\s+(?:\w+\s+)?BATCH\b", re.IGNORECASE)
BATCH_END = re.compile(r"APPLY\s+BATCH\s*;?", re.IGNORECASE)

# A verb and what makes it more than an English word.
START = (
    r"(?:SELECT\s+\S.*?\sFROM\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+(?:USING|SET)\s|DELETE\s+(?:\S.*?\s)?FROM\s"
    r"|(?:CREATE|ALTER|DROP)\s+(?:TABLE|KEYSPACE|TYPE|INDEX|MATERIALIZED|FUNCTION|AGGREGATE|ROLE|USER)\s+\w"
    r"|TRUNCATE\s+\w|GRANT\s+\w.*?\sTO\s|REVOKE\s+\w.*?\sFROM\s|BEGIN\s+(?:\w+\s+)?BATCH\b|USE\s+\w+\s*;)"
)
BLOCK_STATEMENT = re.compile(rf"^[ \t]*({START}[^;]*;)", re.MULTILINE | re.DOTALL)
STRING_STATEMENT = re.compile(rf"([\"'`])({START}(?:(?!\1)[^\n])*)\1")
OUTPUT_STATEMENT = re.compile(rf"[^\n\"'`;]*?\b({START}[^;\n]*;)")
PROSE_STATEMENT = re.compile(rf"`({START}[^`\n]*)`")
PROSE_FRAGMENT = re.compile(r"`([a-z]\w*\(\)|PRIMARY KEY \([^`\n]*\)|\{'[^`\n]*\}|[<>!]=|=|<>|<|>|IN)`")


def fences(text):
    """Blocks of the document: (language, first line, content); prose between them has language None."""
    language, first, lines = None, 1, []
    for number, line in enumerate(text.split("\n"), 1):
        fence = FENCE.match(line)
        if not fence:
            lines.append(line)
            continue
        yield language, first, "\n".join(lines)
        language = (fence[1] or "plain") if language is None else None
        first, lines = number + 1, []
    yield language, first, "\n".join(lines)


def statements_of_block(content):
    """Statements of a block of CQL: (offset, text). One without a semicolon ends at an empty line or at the end."""
    position, length = 0, len(content)
    while True:
        while position < length and (content[position].isspace() or COMMENT.match(content, position)):
            comment = COMMENT.match(content, position)
            position = comment.end() if comment else position + 1
        if position == length:
            return
        start = position
        if BATCH.match(content, position):
            end = BATCH_END.search(content, position)
            position = end.end() if end else length
        else:
            position = end_of_statement(content, position)
        yield start, content[start:position].rstrip()


def end_of_statement(content, position):
    while position < len(content):
        skipped = COMMENT.match(content, position) or QUOTED.match(content, position)
        if skipped:
            position = skipped.end()
        elif content[position] == ";":
            return position + 1
        elif re.compile(r"\n[ \t]*\n").match(content, position):
            return position
        else:
            position += 1
    return position


def statements_elsewhere(content):
    """Statements of a block in another language: (offset, text)."""
    taken = set()
    for pattern, group in ((BLOCK_STATEMENT, 1), (STRING_STATEMENT, 2), (OUTPUT_STATEMENT, 1)):
        for match in pattern.finditer(content):
            if match.start(group) not in taken:
                taken.add(match.start(group))
                yield match.start(group), match[group].rstrip()


def extract(text):
    """Every statement of the document: [(line, text)], by line."""
    found = []
    for language, first, content in fences(text):
        if language in ("cql", "sql"):
            statements = statements_of_block(content)
        elif language is None:
            statements = ((match.start(1), match[1]) for match in PROSE_STATEMENT.finditer(content))
        else:
            statements = statements_elsewhere(content)
        for offset, statement in statements:
            found.append((first + content.count("\n", 0, offset), statement))
    return sorted(found)


def fragments(text):
    """Fragments of CQL in prose: [(line, text)], by line."""
    found = []
    for language, first, content in fences(text):
        if language is None:
            for match in PROSE_FRAGMENT.finditer(content):
                found.append((first + content.count("\n", 0, match.start()), match[1]))
    return found


def main():
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    for kind, found in (("statement", extract(text)), ("fragment", fragments(text))):
        for line, content in found:
            print(f"{line} {kind}\n{content}\n")


if __name__ == "__main__":
    main()
