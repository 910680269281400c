//! CREATE and DROP of functions and aggregates.

use super::cursor::{Parse, Parser};
use crate::ast::{CreateAggregate, CreateFunction, DropFunction, FunctionArgument, Name, RawType};
use crate::lexer::{Keyword, TokenKind};

impl Parser<'_> {
    /// After CREATE [OR REPLACE] FUNCTION.
    pub(super) fn create_function(&mut self, or_replace: bool) -> Parse<CreateFunction> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.function_name()?;
        let (open, close) = (TokenKind::OpenParenthesis, TokenKind::CloseParenthesis);
        let arguments = self.enclosed_or_empty(open, close, |parser| {
            Ok(FunctionArgument {
                name: parser.name()?,
                raw_type: parser.cql_type()?,
            })
        })?;
        let called_on_null_input = if self.take_keyword(Keyword::Called) {
            true
        } else if self.take_keyword(Keyword::Returns) {
            self.expect_keyword(Keyword::Null)?;
            false
        } else {
            return Err(self.no_viable());
        };
        for keyword in [Keyword::On, Keyword::Null, Keyword::Input, Keyword::Returns] {
            self.expect_keyword(keyword)?;
        }
        let return_type = self.cql_type()?;
        self.function_promise()?;
        self.expect_keyword(Keyword::Language)?;
        let language = self.expect(TokenKind::Identifier)?;
        let language = Name::from(self.raw_text(language).to_ascii_lowercase());
        self.expect_keyword(Keyword::As)?;
        let body = self.string()?;
        Ok(CreateFunction {
            or_replace,
            if_not_exists,
            name,
            arguments,
            called_on_null_input,
            return_type,
            language,
            body,
        })
    }

    /// `[DETERMINISTIC | MONOTONIC [ON argument]]`: promises that nothing here makes use of.
    fn function_promise(&mut self) -> Parse<()> {
        if !self.take_word("deterministic") && self.take_word("monotonic") && self.take_keyword(Keyword::On) {
            self.name()?;
        }
        Ok(())
    }

    /// After CREATE [OR REPLACE] AGGREGATE.
    pub(super) fn create_aggregate(&mut self, or_replace: bool) -> Parse<CreateAggregate> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.function_name()?;
        let argument_types = self.argument_types()?;
        self.expect_keyword(Keyword::Sfunc)?;
        let state_function = self.unqualified_function_name()?;
        self.expect_keyword(Keyword::Stype)?;
        let state_type = self.cql_type()?;
        let final_function = if self.take_keyword(Keyword::Finalfunc) {
            Some(self.unqualified_function_name()?)
        } else {
            None
        };
        let initial_condition = if self.take_keyword(Keyword::Initcond) {
            Some(self.term()?)
        } else {
            None
        };
        Ok(CreateAggregate {
            or_replace,
            if_not_exists,
            name,
            argument_types,
            state_function,
            state_type,
            final_function,
            initial_condition,
        })
    }

    /// `(type, type)`, maybe empty
    pub(super) fn argument_types(&mut self) -> Parse<Vec<RawType>> {
        self.enclosed_or_empty(
            TokenKind::OpenParenthesis,
            TokenKind::CloseParenthesis,
            Self::cql_type,
        )
    }

    /// After DROP FUNCTION or DROP AGGREGATE.
    pub(super) fn drop_function(&mut self) -> Parse<DropFunction> {
        let if_exists = self.if_exists()?;
        let name = self.function_name()?;
        let argument_types = if self.at(TokenKind::OpenParenthesis) {
            Some(self.argument_types()?)
        } else {
            None
        };
        Ok(DropFunction {
            name,
            if_exists,
            argument_types,
        })
    }
}
