"""The files of the example corpus: their format, and a parser that refuses what it does not know.

Lines that start with @ are directives; what follows one, up to the next, is CQL.

    @section TITLE          a keyspace of its own for what follows
    @keyspace NAME          a keyspace with a fixed name that the section works with; dropped before and after it
    @guarded                the section needs a node where clients have to log in
    @shell TEXT             the section's printed statements are one script of cqlsh, whose output holds TEXT
    @given                  statements that the document takes for granted
    @line NUMBER            a statement of the document, exactly as printed there
    @fragment NUMBER CODE   a statement around a piece of code that the document's prose shows
    @check                  a statement that looks at what the last one did
    @repaired               what to write instead of the printed statement that was refused; one statement or more

About the statement before them:

    @bind JSON              it is prepared, and executed with these values
    @format JSON            the driver puts these values into its text
    @gives JSON             its rows, in order; "*" stands for any value
    @error KIND TEXT        it is refused with this kind of error, and a message that holds TEXT
    @other WHAT             it is not CQL but WHAT: refused as a syntax error, and there is nothing to repair

In given, check and repaired statements, $KEYSPACE is the section's keyspace.
"""

import dataclasses
import json
import pathlib
import re

from extract import statements_of_block

FOLDER = pathlib.Path(__file__).resolve().parent
KINDS = ("Syntax", "Invalid", "Config", "AlreadyExists", "Unauthorized")
STATEMENTS = ("given", "line", "fragment", "check", "repaired")


@dataclasses.dataclass
class Statement:
    """One statement, or the statements of one directive, and what is expected of it (of the last of them)."""

    role: str
    where: str
    line: int | None = None
    code: str | None = None
    text: str = ""
    values: list | None = None
    is_formatted: bool = False
    rows: list | None = None
    error: tuple | None = None
    other: str | None = None

    def parts(self):
        """Its statements one by one; a printed one is never taken apart."""
        if self.role in ("given", "repaired"):
            return [text for _, text in statements_of_block(self.text)]
        return [self.text]


@dataclasses.dataclass
class Section:
    title: str
    where: str
    keyspaces: list = dataclasses.field(default_factory=list)
    is_guarded: bool = False
    shell_output: str | None = None
    statements: list = dataclasses.field(default_factory=list)

    def printed(self):
        return [statement for statement in self.statements if statement.line is not None]


def parse(path):
    """The sections of one file."""
    sections, current, lines, is_described = [], None, [], False

    def close():
        if current is not None:
            current.text = "\n".join(lines).strip("\n")
            if not current.text:
                raise ValueError(f"{current.where}: no statement after the directive")

    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        where = f"{path.name}:{number}"
        directive = re.match(r"@(\w+) ?(.*)", line)
        if not directive:
            if line.strip() and (current is None or is_described):
                raise ValueError(f"{where}: text that belongs to no directive")
            lines.append(line)
            continue
        name, argument = directive.groups()
        if name == "section" or name in STATEMENTS:
            close()
            current, lines, is_described = None, [], False
        if name == "section":
            sections.append(Section(argument, where))
        elif name in STATEMENTS:
            number_, _, code = argument.partition(" ")
            is_printed = name in ("line", "fragment")
            current = Statement(name, where, int(number_) if is_printed else None, code or None)
            sections[-1].statements.append(current)
        elif current is None:
            describe_section(sections[-1], name, argument, where)
        else:
            describe_statement(current, name, argument, where)
            is_described = True
    close()
    for section in sections:
        check_repairs(section)
    return sections


def describe_section(section, name, argument, where):
    if name == "keyspace":
        section.keyspaces.append(argument)
    elif name == "guarded":
        section.is_guarded = True
    elif name == "shell":
        section.shell_output = argument
    else:
        raise ValueError(f"{where}: @{name} describes a statement; put it behind one")


def describe_statement(statement, name, argument, where):
    if name in ("bind", "format"):
        statement.values, statement.is_formatted = json.loads(argument), name == "format"
    elif name == "gives":
        statement.rows = json.loads(argument)
    elif name == "error":
        kind, _, text = argument.partition(" ")
        if kind not in KINDS or not text:
            raise ValueError(f"{where}: @error takes one of {', '.join(KINDS)} and a part of the message")
        statement.error = kind, text
    elif name == "other":
        statement.other, statement.error = argument, ("Syntax", "")
    else:
        raise ValueError(f"{where}: unknown directive @{name}")


def check_repairs(section):
    """Each refused statement of the document has its repaired form, unless it is in another language."""
    statements = section.statements
    for statement, follower in zip(statements, statements[1:] + [None]):
        needs_repair = statement.error is not None and statement.other is None
        has_repair = follower is not None and follower.role == "repaired"
        if needs_repair != has_repair:
            raise ValueError(f"{statement.where}: a refused statement is followed by @repaired, and only that is")


def load():
    """All sections of the corpus."""
    return [section for path in sorted(FOLDER.glob("*.corpus")) for section in parse(path)]
